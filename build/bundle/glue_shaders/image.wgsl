// float32 [batch, 3, height, width] in 0..1 to RGBA8 [batch, height, width], red in the lowest byte. WGSL's round() goes to
// the even neighbour on a tie, as numpy's does.

struct Picture { pixels: u32 }

@group(0) @binding(0) var<storage, read> image: array<f32>;
@group(0) @binding(1) var<storage, read_write> rgba: array<u32>;
@group(0) @binding(2) var<uniform> picture: Picture;

fn level(value: f32) -> u32 {
    return u32(round(clamp(value, 0.0, 1.0) * 255.0));
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + thread;
    if (i >= arrayLength(&rgba)) {
        return;
    }
    let plane = picture.pixels;
    let red = (i / plane) * 3u * plane + i % plane;
    let green = red + plane;
    let blue = green + plane;
    rgba[i] = level(image[red]) | (level(image[green]) << 8u) | (level(image[blue]) << 16u) | 0xff000000u;
}
