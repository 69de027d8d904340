"""Bundles: building them from tuning records, and running them on this machine.

A bundle is a folder of WGSL shaders, weights and a static plan that a browser runs; docs/bundle.md describes it.

May import `wgtune.tuner` and the packages below it. Imported by `wgtune.cli` only; `wgtune.reports` uses its types.

Packages, in reading order:

- `format`: the bundle's files as data, reading and writing them
- `samplers`: diffusers' schedulers as recurrences
- `bundle`: from a model and a database to a bundle
- `runtime`: from a bundle and a prompt to an image, through wgpu
"""
