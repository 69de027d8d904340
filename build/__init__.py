"""From records to pictures: builds a bundle of WGSL, plan and weights, and runs one on this machine.

- `builder`: one call that makes a bundle folder; `choice` picks each kernel's program from the database
- `assembly` and `memory`: captured stages and programs become one plan over shared buffers; `plan` is that plan as data
- `weights`, `schedulers`, `tokenizer`, `glue_stages`: the other things in the folder
- `manifest` and `bundle`: what the folder says of itself, and reading one that may be damaged
- `native`: walks a plan through wgpu; `pipeline` answers to diffusers' call; `generate` writes one PNG

The folder's format is described in docs/bundle.md.
"""
