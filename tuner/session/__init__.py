"""Tuning sessions on one device: from a request to committed trials.

May import `wgtune.tuner.search`, `codegen`, `reference` and `ir`, and below the tuner `wgtune.devices`,
`wgtune.database` and `wgtune.support`. Nothing here knows of several devices, of terminals or of the command line.

Reading order:

- `request`: what a session is asked to do.
- `session`: `tune`, the whole session from top to bottom; begin here.
- `registration`: selects kernels; inserts model, workloads and the session's description.
- `kernel_state`: what is known of each kernel, and the leases that share kernels out among tuners.
- `context`: the objects that the steps below share.
- `baselines`, `transfer`, `search_loop`: the three steps of a session, in this order.
- `trial`: a trial's input and result; schedules read back from the database.
- `trial_runner`: one trial, from committed as running to committed as ended; quarantine.
- `drift`: checks the device's speed between trials and has trials repeated.
- `prefetch`: background work while the device measures.
- `phase_timer`: the session's seconds by phase.
- `events`: what listeners are told.
"""
