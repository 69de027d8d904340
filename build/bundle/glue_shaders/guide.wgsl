// Classifier-free guidance (Ho and Salimans, 2022): `noise` holds the UNet's output for the negative prompts, then for the
// positive ones; slot 1 of `state` receives u + guidance * (c - u).

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
    let count = arrayLength(&noise) / 2u;
    let i = (group.y * groups.x + group.x) * 256u + thread;
    if (i >= count) {
        return;
    }
    let negative = noise[i];
    state[count + i] = negative + step.guidance * (noise[count + i] - negative);
}
