"""Devices reached by TVM's own runtime: native code on CUDA, Metal or the processor.

May import `measure` of `wgtune.devices`, and its data modules. Reading order:

- `backend`: `TvmBackend`, its timer and its peak programs. Imports TVM.
- `main`: main module of a worker's child process.
"""
