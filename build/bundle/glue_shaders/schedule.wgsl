// One row of a sampler's recurrence. Slot 0 of `state` holds noise, slot 1 the last output of the UNet, the others the sampler's
// states, of which each becomes a weighted sum over all slots. State 0 is the latent that the networks receive: `latents` holds
// it once, or twice in a row where the UNet sees the negative and the positive prompt together.

struct Step { states: u32, guidance: f32, unused0: u32, unused1: u32 }

const MOST = 10u;

@group(0) @binding(0) var<storage, read_write> state: array<f32>;
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
    let slots = min(step.states + 2u, MOST);
    var before: array<f32, MOST>;
    for (var slot = 0u; slot < slots; slot++) {
        before[slot] = state[slot * count + i];
    }
    for (var row = 0u; row + 2u < slots; row++) {
        var sum = 0.0;
        for (var slot = 0u; slot < slots; slot++) {
            let factor = coefficients[row * slots + slot];
            // A slot that counts for nothing may hold what an earlier picture left there, NaN too.
            if (factor != 0.0) {
                sum += factor * before[slot];
            }
        }
        state[(row + 2u) * count + i] = sum;
        if (row == 0u) {
            decoded[i] = sum;
            for (var at = i; at < arrayLength(&latents); at += count) {
                latents[at] = sum;
            }
        }
    }
}
