"""Discovery of this machine's GPUs.

May import `device`, `naming` and `webgpu` of `wgtune.devices`. Reading order:

- `discovery`: starts a child process for each family of drivers; selects devices by what the user names.
- `probe`: main module of such a child.
"""
