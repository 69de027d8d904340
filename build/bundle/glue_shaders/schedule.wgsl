// The latent that the networks receive: a weighted sum over the slots of `history`, the first of which is the noise.
// `latents` holds the result once, or twice in a row where the UNet sees the negative and the positive prompt together.

struct Step { terms: u32, slot: u32, guidance: f32, unused: u32 }

@group(0) @binding(0) var<storage, read> history: array<f32>;
@group(0) @binding(1) var<storage, read> coefficients: array<f32>;
@group(0) @binding(2) var<storage, read_write> latents: array<f32>;
@group(0) @binding(3) var<storage, read_write> decoded: array<f32>;
@group(0) @binding(4) var<uniform> step: Step;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let count = arrayLength(&decoded);
    let i = (group.y * groups.x + group.x) * 256u + thread;
    if (i >= count) {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < step.terms; k++) {
        sum += coefficients[k] * history[k * count + i];
    }
    decoded[i] = sum;
    for (var at = i; at < arrayLength(&latents); at += count) {
        latents[at] = sum;
    }
}
