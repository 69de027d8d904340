// Without guidance the UNet's output goes into slot 1 of `state` as it is.

struct Step { states: u32, guidance: f32, unused0: u32, unused1: u32 }

@group(0) @binding(0) var<storage, read> noise: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@group(0) @binding(2) var<uniform> step: Step;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let count = arrayLength(&noise);
    let i = (group.y * groups.x + group.x) * 256u + thread;
    if (i >= count) {
        return;
    }
    state[count + i] = noise[i];
}
