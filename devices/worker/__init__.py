"""Workers for devices of this machine.

May import `measure` of `wgtune.devices`, and its data modules. The backends run in child processes, which are started
by module name. Reading order:

- `factory`: `MeasuringWorker`, the interface of all workers; `open_worker`.
- `worker`: `Worker`, two alternating child processes, restarts, and attribution of faults.
- `child_handle`: requests to one child process, with time limits by phase.
"""
