"""Devices reached by wgpu: WGSL on Vulkan, Metal, D3D12 or OpenGL.

May import `measure` of `wgtune.devices`, and its data modules. All modules but `main`, `c_types` and `cpu_affinity`
import wgpu. Reading order:

- `gpu`: adapters, devices, pipelines, buffers and compute passes, for measuring and for running bundles.
- `backend`: `WebGpuBackend`.
- `device_case`: buffers of a case.
- `timing`: `Timer`, by timestamps or the wall clock, with warm or cold caches.
- `cpu_affinity`: a core for each of a driver's threads, where the driver needs that.
- `driver_threads`: which threads those are.
- `peaks`: highest throughput of a device, and the time of a dispatch.
- `c_types`: quick look-up of wgpu's C types.
- `main`: main module of a worker's child process.
"""
