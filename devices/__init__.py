"""GPUs: discovery, and workers that measure and verify programs on one of them.

May import `wgtune.support` and `wgtune.web`; never `wgtune.database`. Reading order:

- `device`: `Device`, identity, limits and features of a GPU.
- `program`: `Program` (WGSL) and `NativeProgram` (TVM), a kernel in executable form.
- `limits`: tiers, the limits that bundles may require of browsers.
- `naming`: from reported names to vendor, architecture, model and key.
- `quirks`: what is known of one driver, as data; acts on its devices alone.
- `wgsl_bindings`, `wgsl_loops`: bindings that a WGSL module declares; iterations of a program's loops.
- `discovery`: which GPUs this machine has, and which one the user names.
- `measure`: the measurement of one job, the same for every kind of device.
- `webgpu`, `tvm`, `browser`: the kinds of devices: wgpu, TVM's own runtime, pages of browsers.
- `offline`: GPUs that are not here, whose compilers are; they measure nothing.
- `worker`: child processes that measure, their restarts, and attribution of faults.
"""
