"""From a model to tuned kernels: capture, code generation, search, and the sessions that measure.

May import `wgtune.devices`, `wgtune.database`, `wgtune.web` and `wgtune.support`. Import-linter holds the order of the
packages: each may import those below it in this list, but not its neighbours on the same line.

- `fleet`, `remeasure`, `interop`: sessions on several devices; stored schedules measured again; TVM's JSON databases.
- `session`: one tuning session on one device. To follow `wgtune tune`, begin at `session.session.tune`.
- `search`: which kernel gets the next trials, and which schedules are tried.
- `compiled`, `programs`: what the compilers of GPUs that are not here make of shaders; programs of schedules on disk.
- `codegen`, `reference`, `capture`: schedules to WGSL or native code; expected outputs; models to kernels.
- `schedule_rules`: the project's own schedules of products, convolutions and reductions.
- `ir`, `kernel_names`: the captured model as plain data; the class of a kernel by its name.
- `picture_time`: what a program costs a visitor.
"""
