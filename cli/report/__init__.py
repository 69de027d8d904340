"""The commands of `wgtune report`, a module for each group of them.

May import what ``cli`` may. Modules:

- `records`: coverage and latency, from the records alone.
- `search`: best speed so far against trials.
- `measured`: stability and fidelity, which measure again.
- `pytorch`: the records beside times of PyTorch.
- `compiled`: programs compiled for GPUs that are not here.
- `bundle`: where a bundle's kernels come from.
"""
