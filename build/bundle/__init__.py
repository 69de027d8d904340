"""The builder: from a model and a database of tuning records to a bundle folder.

May import `wgtune.tuner`, `wgtune.database`, `wgtune.devices`, `wgtune.build.memory` and `wgtune.build.format`; not
`wgtune.build.runtime`.

Modules, in reading order:

- `builder`: `build_bundle`, every step in order
- `program_choice`: each kernel's program: own record, borrowed schedule or baseline
- `shared_shaders`: one module for shaders that differ only in constants
- `dispatch_times`: how long dispatches may take, and programs that keep to it
- `planned_program`: one of the bundle's programs: its kernels, its plan, and what it needs
- `assembly`: captured stages and programs to one plan
- `glue`: the hand-written shaders between the networks
- `device_limits`: the WebGPU limits that a plan needs, checked against a tier
- `weights`: packs weights and constants into shards
- `tokenizer`: the tokenizer's files
- `documents`: the record of each kernel's program, and times of stages, as documents of the bundle
- `bundle_programs`: the shaders of a finished bundle by kernel, to be judged without running them
- `atomic_folder`: replaces the output folder in one step
"""
