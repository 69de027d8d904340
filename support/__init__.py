"""Helpers that every package may use. They import nothing of wgtune outside this package.

Reading order:

- `errors`: errors that the user can mend, with the exit status of each.
- `enums`: enumerations that several packages share.
- `console`: notes, warnings, errors and progress on the terminal.
- `paths`: folders of caches and data; files of the cache, written whole and deleted when long unused.
- `formatting`: numbers, durations and sizes as text.
- `order_statistics`: medians and their confidence intervals.
- `hashing`: SHA-256 digests.
- `shader_facts`: what a GPU's compiler makes of a shader.
- `serialization`: dataclasses as JSON values, and back.
- `json_lines`: messages between processes, a JSON object per line.
- `child_process`: the parent's side of a child process; `child_main` is the child's side.
- `tvm_import`: import of TVM without PyTorch.
- `signals`: Ctrl-C and SIGTERM that stop without leaving work half done.
"""
