"""Questions that several rows or several databases answer.

May import the modules of ``database`` and its ``schema``, not ``exchange`` or ``tvm``. Reading order:

- `layers`: the user's database over any number of releases, as one `Reader`.
- `transfer_lookup`: the best schedule for a device from the most similar device that has one.
- `ranked_schedules`: a workload's schedules, fastest first.
- `near_ties`: records as fast as the best one, within noise.
- `replay_status`: which stored schedules the installed TVM can still apply.
- `search_history`: each kernel's trials in the order in which a search made them.
- `remeasured`: trials that were measured again, beside the first measurement.
- `compiled_facts`: what GPUs' compilers make of shaders, and the shaders of programs.
- `taught_trials`: trials as search learns from them, with the features of schedules.
- `shared_schedules`: schedules that two devices both measured.
- `health`: failures per device, and quarantined programs.
- `trial_details`: every stored value of one session or one trial.
"""
