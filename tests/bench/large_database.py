"""Large databases with made-up trials: rows as tuning writes them, in size and in kind, inserted in bulk."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from wgtune.database.schema.records import DeviceInfo, ModelInfo, ModelKernel, Param, SessionInfo, TvmForm, WorkloadInfo
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.hashing import digest_of

CAPTURE = digest_of("large")
_TRACES_PER_KERNEL = 2000
"""Search meets the same schedule again on other devices: a trace is kept once."""
_TRIALS_PER_SESSION = 2000
_EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
_FAILURES = (TrialState.BUILD_ERROR, TrialState.WRONG_RESULT, TrialState.RUN_TIMEOUT, TrialState.RUN_ERROR)

_INSERT = """
INSERT INTO trial (session_id, number, workload_id, device_id, schedule_id, runtime, kind, state, latency_s,
  program_digest, needs, launches, seed, samples_s, timer, compile_s, run_s, verify_s, max_error, rtol, atol, error,
  started, ended)
VALUES (?, ?, ?, ?, ?, 'wgpu', ?, ?, ?, ?, ?, 1, ?, ?, 'timestamp', ?, ?, ?, ?, 0.001, 0.0001, ?, ?, ?)
"""


@dataclass(frozen=True)
class Shape:
    """How much is in a database: trials are spread evenly over devices × kernels.

    Databases of different ``origin`` share devices, kernels and schedules, and no session.
    """

    trials: int
    devices: int = 50
    kernels: int = 200
    origin: int = 0


def device(index: int) -> DeviceInfo:
    """One of the devices."""
    vendor = ("AMD", "NVIDIA", "Intel", "Apple", "Qualcomm")[index % 5]
    name = f"{vendor} GPU {1000 + index}"
    return DeviceInfo(f"vulkan:gpu-{1000 + index}", "Vulkan", vendor, f"generation-{index % 12}", name, False)


def workload(index: int) -> WorkloadInfo:
    """One of the kernels, with a canonical text of a fused matmul's length."""
    lines = (f"for i{i} in range({16 + (index * 7 + i) % 240}): b{i % 7}[i{i}] = b{i % 5}[i{i - 1}]" for i in range(40))
    text = f"kernel {index}\n" + "\n".join(lines)
    params = tuple(Param(f"p{i}", (1, 320, 64, 64), "float32") for i in range(4))
    form = TvmForm("0.27.0.post1", json.dumps({"root_index": 158, "nodes": text.split()}), str(index))
    return WorkloadInfo(digest_of(text), f"matmul_add_{index:08x}", text, (form,), params, (3,), 2e9, 12 << 20)


def fill(path: Path, shape: Shape) -> None:
    """Makes a SQLite database of this shape at ``path``, the same one each time."""
    rng = random.Random(shape.origin)
    kernels = [workload(index) for index in range(shape.kernels)]
    with Store.open(str(path)) as store:
        store.add_workloads(kernels)
        model = ModelInfo(CAPTURE, "large", {"width": 512, "height": 512, "batch": 1, "guidance": True})
        store.add_model(model, [ModelKernel("unet", kernel.id, 3, i) for i, kernel in enumerate(kernels)])
        per_device = shape.trials // shape.devices
        sessions = [
            [store.begin_session(session(index)) for _ in range(-(-per_device // _TRIALS_PER_SESSION))]
            for index in range(shape.devices)
        ]
    connection = sqlite3.connect(path, isolation_level=None)
    # Nobody else reads it yet, and what a crash leaves behind is made again.
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    connection.execute("BEGIN")
    traces = min(_TRACES_PER_KERNEL, max(1, shape.trials // shape.kernels))
    connection.executemany(
        "INSERT INTO schedule (id, digest, trace) VALUES (?, ?, ?)", _schedules(shape.kernels, traces)
    )
    connection.executemany(_INSERT, _trials(rng, shape, sessions, traces))
    for of_device in sessions:
        connection.executemany(
            "UPDATE session SET outcome = 'completed', ended = started, uid = ? WHERE id = ?",
            [(hashlib.md5(f"{shape.origin} {i}".encode()).hexdigest(), i) for i in of_device],
        )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def trace(kernel: int, index: int) -> str:
    """A schedule as MetaSchedule writes one for a GPU: three tiled loops, two staged inputs, 60 instructions."""
    rng = random.Random(kernel << 20 | index)
    instructions: list[Any] = [["GetSBlock", [], ["matmul", "main"], ["b0"]], ["GetLoops", ["b0"], [], ["l1", "l2"]]]
    decisions: list[Any] = []
    for axis in range(3):
        names = [f"v{axis * 10 + i}" for i in range(5)]
        decisions.append([len(instructions), [rng.choice((1, 2, 4, 8, 16, 32)) for _ in names]])
        instructions.append(["SamplePerfectTile", [f"l{axis}"], [5, 64], names])
        instructions.append(["Split", [f"l{axis}", *names], [1, 0], [f"l{axis * 10 + i}" for i in range(5)]])
    for i in range(52):
        instructions.append(
            ["Annotate", [f"b{i % 6}", f"v{rng.randrange(30)}"], ["meta_schedule.cooperative_fetch"], []]
            if i % 3
            else ["ComputeAt", [f"b{i % 6}", f"l{i}"], [1, -1], []]
        )
    return json.dumps([instructions, decisions], separators=(",", ":"))


def session(index: int) -> SessionInfo:
    """A tuning session on one of the devices."""
    return SessionInfo(
        device=device(index),
        runtime=Runtime.WGPU,
        driver="Mesa 25.1.0",
        adapter={"limits": {f"limit{i}": 2**i for i in range(30)}, "features": ["timestamp-query", "shader-f16"]},
        toolchain={"wgtune": "0.1.0", "apache-tvm": "0.27.0.post1", "wgpu": "0.32.0"},
        model="large",
        capture_key=CAPTURE,
        tier="default",
        budget={"trials": 64},
        seed=0,
        reason="bench",
        host="bench",
        pid=1,
    )


def _schedules(kernels: int, traces: int) -> Iterator[tuple[int, str, bytes]]:
    for kernel in range(kernels):
        for index in range(traces):
            text = trace(kernel, index)
            yield kernel * traces + index + 1, digest_of(text), zlib.compress(text.encode())


def _trials(rng: random.Random, shape: Shape, sessions: list[list[int]], traces: int) -> Iterator[tuple[Any, ...]]:
    """In the order in which tuning writes them: device after device, all kernels in turns."""
    per_device = shape.trials // shape.devices
    for index, of_device in enumerate(sessions):
        for i in range(per_device):
            kernel, turn = i % shape.kernels, i // shape.kernels
            session_id, number = of_device[i // _TRIALS_PER_SESSION], i % _TRIALS_PER_SESSION + 1
            started = _EPOCH + timedelta(seconds=shape.origin * 10**7 + index * per_device + i)
            when = f"{started:%Y-%m-%d %H:%M:%S.%f}"
            schedule_id = kernel * traces + rng.randrange(traces) + 1
            program = f"{rng.getrandbits(256):064x}"
            needs = (
                f'{{"threads": [{rng.choice((64, 128, 256))}, 1, 1], "workgroup_bytes": {rng.randrange(0, 16385, 256)},'
                f' "storage_bindings": 4, "largest_binding": {rng.randrange(1 << 27)}, "features": []}}'
            )
            if rng.random() < 0.7:
                median = round(1e-4 * (1 + kernel % 17) * rng.lognormvariate(0.5, 0.4), 12)
                samples = sorted(round(median * rng.uniform(0.97, 1.03), 12) for _ in range(8))
                samples = [*samples[:4], median, *samples[4:]]
                state, latency, error, text = "ok", sorted(samples)[4], rng.random() * 1e-4, ""
            else:
                samples, latency, error, text = [], None, None, "the output differs from the reference " * 3
                state = rng.choice(_FAILURES).value
            kind = "search" if turn else "baseline"
            times = (rng.random(), rng.random(), rng.random())
            yield (
                *(session_id, number, kernel + 1, index + 1, schedule_id, kind, state, latency, program, needs, i),
                *(json.dumps(samples), *times, error, text, when, when),
            )
