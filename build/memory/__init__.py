"""Where a program's intermediate tensors lie, so that they take little memory.

- `in_place`: sums that are written into the memory of a summand
- `call_order`: the order of a stage's calls that takes the least memory
- `buffer_sharing`: ranges of buffers for tensors, by their lifetimes
"""
