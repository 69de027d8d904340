"""What a kernel must compute, and how fast that can be believed.

May import ``devices.measure`` and ``support``. Reading order:

- `reference`: inputs from a seed, exact outputs and tolerances, as files that the measuring worker reads.
- `cpu_reference`: TensorIR run on the CPU, in double precision.
- `roofline`: the shortest plausible time of a kernel on a device.
"""
