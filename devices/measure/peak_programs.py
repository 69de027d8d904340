"""WGSL programs that measure what a device can do at most: arithmetic in registers, copies within caches, dispatches.

The first two bound a kernel's time from below: the roofline of S. Williams, A. Waterman and D. Patterson, "Roofline: an
insightful visual performance model for multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from .job import Peaks, Sampling

THREADS = 256
_ROUNDS = 64
_CHAINS = 8
SAMPLING = Sampling(min_samples=3, min_seconds=0.01, max_seconds=0.01)
_MAX_LAUNCH_REPEATS = 1024
_LAUNCH_PASS_S = 5e-3
_LAUNCH_ROUNDS = 15
_LONG_S = 0.02  # a run of this length occupies the whole device

# Eight independent chains of four-wide multiply-adds: enough to hide the latency of one, few enough for registers.
ARITHMETIC = f"""
@group(0) @binding(0) var<storage, read_write> result: array<vec4<f32>>;
@compute @workgroup_size({THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
  let step = vec4<f32>(f32(id.x) * 1e-6 + 0.5);
{"".join(f"  var x{i} = step + {i}.0;{chr(10)}" for i in range(_CHAINS))}
  for (var round = 0u; round < {_ROUNDS}u; round++) {{
{"".join(f"    x{i} = x{i} * step + step;{chr(10)}" for i in range(_CHAINS)) * 4}
  }}
  result[id.x] = {" + ".join(f"x{i}" for i in range(_CHAINS))};
}}
"""
ARITHMETIC_GROUP_BYTES = THREADS * 16

COPY = f"""
@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<f32>>;
@compute @workgroup_size({THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {{
  let first = group.x * {4 * THREADS}u + lane;
  for (var i = 0u; i < 4u; i++) {{
    target_[first + i * {THREADS}u] = source[first + i * {THREADS}u];
  }}
}}
"""
COPY_GROUP_BYTES = 4 * THREADS * 16

# Each of two dispatches in turn reads what the other wrote, as the kernels of a network do, so that none overlaps the
# next. They differ, so that the pipeline changes, too.
LAUNCHES = tuple(
    f"""
@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<f32>;
@compute @workgroup_size(1)
fn main() {{ target_[0] = source[0] + {addend}; }}
"""
    for addend in ("1.0", "2.0")
)
LAUNCH_BYTES = 16


def find_peaks(
    arithmetic_s: Callable[[int], float], copy_s: Callable[[int], float], launches_s: Callable[[int], float]
) -> Peaks:
    """Return the highest throughput over several sizes of the programs, and the time of a dispatch; takes a second.

    Args:
        arithmetic_s: Returns the shortest seconds of `ARITHMETIC`, given a number of workgroups.
        copy_s: Returns the shortest seconds of `COPY`, given a number of bytes.
        launches_s: Returns the seconds of a pass of `LAUNCHES`, given how often the pair is repeated in it.
    """
    flops_per_s = bytes_per_s = 0.0
    # The number of compute units is unknown: few groups fill a small device, only many a large one.
    for groups in (16, 256, 4096):
        seconds = arithmetic_s(groups)
        flops_per_s = max(flops_per_s, groups * THREADS * _ROUNDS * _CHAINS * 4 * 4 * 2 / seconds)
        if seconds > _LONG_S:
            break
    # Small sizes stay in caches, as a kernel's operands may.
    for nbytes in (256 << 10, 2 << 20, 16 << 20, 64 << 20):
        seconds = copy_s(nbytes)
        bytes_per_s = max(bytes_per_s, 2 * nbytes / seconds)
        if seconds > _LONG_S:
            break
    return Peaks(flops_per_s, bytes_per_s, find_launch_s(launches_s))


def find_launch_s(launches_s: Callable[[int], float]) -> float:
    """Return the seconds that one more dispatch adds to a pass.

    It is the slope between a pass of n pairs and one of 2 n after it, so that what a pass or a submission costs by
    itself does not count; the median over several rounds, since the host takes part in every launch.

    Args:
        launches_s: As in `find_peaks`.
    """
    repeats = 16
    while repeats < _MAX_LAUNCH_REPEATS and launches_s(repeats) < _LAUNCH_PASS_S:
        repeats *= 2
    added_s = statistics.median(-launches_s(repeats) + launches_s(2 * repeats) for _ in range(_LAUNCH_ROUNDS))
    return max(0.0, added_s) / (repeats * len(LAUNCHES))
