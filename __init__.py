"""wgtune: tune the GPU kernels of Stable Diffusion, keep what is learned, and ship it to the browser as WebGPU."""
