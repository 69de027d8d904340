"""Compile-only devices: GPUs whose real compiler runs on this machine without the GPU. No time is ever measured.

AMD's chips compile WGSL. It becomes SPIR-V in an installed Chromium, by the compiler that serves a visitor's page
(Tint). Mesa's RADV opens a device without hardware where ``RADV_FORCE_FAMILY`` names an AMD chip, and compiles that.
NVIDIA's chips compile the CUDA that TVM writes for the same kernels, by NVRTC and ptxas. Linux only.

May import `wgtune.devices.program` and `wgtune.support`. Reading order:

- `chips`: the chips, the files of RADV, and which of the chips this machine can compile for.
- `facts`: from the driver's statistics and machine code of a shader to `support.shader_facts.ShaderFacts`.
- `vulkan`: the part of Vulkan that compiles a shader and asks for statistics, by ctypes.
- `main`: main module of the child process in which RADV runs, one for each chip.
- `cuda`, `cuda_main`: NVIDIA's compilers, and the main module of their child process.
- `devtools`: a headless Chromium, spoken to through a pipe.
- `translation`: WGSL to SPIR-V by that Chromium, and SPIR-V's text to binary.
- `translators`: several such browsers at once.
- `spirv`: entry point and bindings of a SPIR-V binary.
- `compiler`: from shaders to facts, for several chips at once.
"""
