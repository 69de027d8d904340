"""Runs bundles on this machine's GPUs, with the same shaders and plan as the browser.

May import `wgtune.devices` and `wgtune.build.format`; not `wgtune.build.bundle`.

Modules, in reading order:

- `program_selection`: which of a bundle's programs a device runs
- `webgpu_runtime`: loads a program of a bundle onto a device and walks its plan
- `sampling`: a sampler's run, from the bundle's tables or computed
- `driver_warnings`: where a driver's quirk may spoil the picture
- `stage_times`: times each stage as a whole and dispatch by dispatch
- `torch_noise`: the noise that torch's CPU generator gives for a seed
- `painter`: draws prompts into PNG files with one set of options
- `generate`: one image, for `wgtune generate --prompt`
- `prompts`: reads a file of prompts
- `batch`: many images on several devices, for `wgtune generate --prompts`
- `batch_child`: the process that `batch` runs per device
- `contact_sheet`: many images in one file
- `pipeline`: the call interface of diffusers' ``StableDiffusionPipeline``
"""
