"""Tuning on several devices at once: a session per device, each in a process of its own.

May import the tuner's other packages, and below the tuner `wgtune.devices`, `wgtune.database` and `wgtune.support`.
Nothing here knows of terminals or of the command line. Only `dask_agent` and `dask_client` need Dask, which is
optional: no other module imports them at its top.

Reading order:

- `fleet`: `tune_fleet` and its runner, which owns processes, threads and clock; begin here.
- `fleet_state`: the pure state machine that decides what the runner does.
- `fleet_events`: the events that it takes, and the instructions that it returns.
- `listener`: what a fleet reports while it runs, and its summary.
- `session_protocol`: the messages between a fleet and a session's process.
- `session_process`: a session's process.
- `measure_proxy`: measures in the parent process what a session's process asks for.
- `device_source`: protocol of a source of devices that join and leave.
- `browser_source`: the device source of browsers.
- `dask_client`: the device source of a Dask cluster's agents, and the worker that measures on them.
- `dask_agent`: an agent, which measures for tuners on other machines.
"""
