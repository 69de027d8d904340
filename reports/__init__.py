"""Tables, pages and live views of what the database holds; nothing here writes to it.

May import `wgtune.tuner`, `wgtune.devices`, `wgtune.database` and `wgtune.support`. Reading order:

- `tables`: printing of every table, and the interface of a report.
- `selection`, `launch_counts`, `provenance`: model and device of a report; launches per image; where numbers come from.
- `latency`, `coverage`: the reports from records alone.
- `rank_agreement`: comparison of two orders of schedules; `stability` and `fidelity` report it.
- `search_progress`, `search`: best time so far against trials, cold against warm.
- `compiled`: programs compiled for GPUs that are not here; nothing is measured.
- `pytorch`: the records beside times of PyTorch.
- `frames`: reports as pandas data frames.
- `html`: reports as pages. `listings`: results of other commands. `live`: terminal views while tuning.
"""
