"""Measurement of one job: load, compile, run, verify, sample. Independent of how a device is reached.

May import `device` and `program` of `wgtune.devices`. Reading order:

- `job`: `MeasureJob`, `Measurement`, `Sampling`, `Timeouts`.
- `bench`: `measure`, the whole procedure, and `Backend`, the operations that a kind of device supplies.
- `phases`: phases of a job, with time limits and failure states.
- `requirements`: whether a device can run a WGSL program.
- `case_file`: inputs and expected outputs.
- `verify`: comparison of outputs, and the check of the shortest plausible time.
- `sampling`: warm-up, repetition and the stopping rule.
- `precompile`: compilation of the next program.
- `peak_programs`: highest arithmetic and memory throughput.
- `protocol`: jobs, programs and measurements as JSON.
- `job_loop`: request loop of a worker's child process.
"""
