"""What a large database costs: opening it and asking for the best records, against TVM's JSONDatabase; the lookup for
a device that has none of its own; single commits; merging.

Both sides answer the same question, the best record of every kernel of one device, from records of the same length.
JSONDatabase gets as many as it loads in about a minute, for it keeps everything in memory; the two are compared by the
time per record held.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wgtune.database.queries.transfer_lookup import lookup
from wgtune.database.schema.records import TrialEnd, TrialKind, TrialStart
from wgtune.database.store import Store
from wgtune.support.enums import Match, TrialState

from . import merging
from .large_database import Shape, device, fill, session, trace, workload

KERNELS = 200
MOST_RECORDS = 1_000_000
"""What JSONDatabase is given at most, whatever it loads in its time."""


@dataclass(frozen=True)
class Sizes:
    """How much the bench does: trials in the database, seconds for JSONDatabase, trials committed singly, trials
    in each of two databases that are merged.
    """

    trials: int = 1_000_000
    devices: int = 50
    kernels: int = KERNELS
    json_seconds: float = 60.0
    singles: int = 2000
    merges: tuple[int, ...] = merging.SIZES


@dataclass(frozen=True)
class Answer:
    """One side's answer: seconds to open, seconds for all best records, and how many trials it holds."""

    name: str
    records: int
    open_s: float
    best_s: float

    @property
    def per_record_s(self) -> float:
        """Seconds to open and answer, by record held."""
        return (self.open_s + self.best_s) / self.records


@dataclass(frozen=True)
class Commits:
    """Trials a second, each committed by itself: those that come whole, and those that begin durably and end."""

    whole: float
    begun_and_ended: float


def ask_store(path: Path, sizes: Sizes) -> Answer:
    """Medians over devices that nobody asked for before, each time with a store just opened."""
    ids = [workload(i).id for i in range(sizes.kernels)]
    opened, answered = [], []
    for index in range(min(sizes.devices, 9)):
        started = time.perf_counter()
        with Store.open(str(path), create=False) as store:
            opened.append(time.perf_counter() - started)
            started = time.perf_counter()
            found = store.best(device(index).key, ids)
            answered.append(time.perf_counter() - started)
        if len(found) != len(ids):
            raise AssertionError(f"{len(found)} of {len(ids)} kernels have a best record")
    return Answer("wgtune", sizes.trials, statistics.median(opened), statistics.median(answered))


def ask_lookup(path: Path, sizes: Sizes) -> dict[Match, float]:
    """Seconds to find a schedule of every kernel for a device, by how near the nearest one is that has any.

    The farther, the more devices there are to compare: for a stranger it is every device of the database.
    """
    ids = [workload(i).id for i in range(sizes.kernels)]
    own = device(0)
    new = replace(own, key="vulkan:new", model="new GPU 1")
    asked = {
        Match.EXACT: own,
        Match.MODEL: replace(own, key="gl:own", backend="gl"),
        Match.ARCHITECTURE: new,
        Match.VENDOR: replace(new, architecture="new"),
        Match.PORTABLE: replace(new, architecture="new", vendor="new"),
    }
    found = {}
    for match, info in asked.items():
        with Store.open(str(path), create=False) as store:
            started = time.perf_counter()
            matches = {one.match for one in lookup(store, info, ids).values()}
            found[match] = time.perf_counter() - started
        if matches != {match}:
            raise AssertionError(f"a lookup went to {matches}, not to {match}")
    return found


def ask_json_database(folder: Path, sizes: Sizes) -> Answer:
    """TVM's own, on as many records as it loads in the time given, by what fewer took."""
    few = records = 10 * sizes.kernels
    for seconds in (sizes.json_seconds / 10, sizes.json_seconds):
        rate = records / _load(folder, records, sizes.kernels).open_s
        records = max(few, min(MOST_RECORDS, int(rate * seconds)))
    return _load(folder, records, sizes.kernels)


def commit_singly(path: Path, sizes: Sizes) -> Commits:
    """Into the large database, where indexes are deep."""
    kernel = workload(0).id
    end = TrialEnd(TrialState.OK, (1e-3,) * 9, "timestamp", 0.1, 0.1, 0.1, 1e-6, 1e-3, 1e-4)
    needs = {"threads": [64, 1, 1], "workgroup_bytes": 4096, "storage_bindings": 4, "features": []}
    with Store.open(str(path)) as store:
        session_id = store.begin_session(session(0))
        texts = [trace(sizes.kernels, index) for index in range(sizes.singles)]
        start = TrialStart(session_id, kernel, TrialKind.SEARCH, "", "a" * 64, needs, 1, 0)
        started = time.perf_counter()
        for text in texts:
            store.add_trial(replace(start, trace=text), end)
        whole = sizes.singles / (time.perf_counter() - started)
        started = time.perf_counter()
        for text in texts[: sizes.singles // 4]:
            store.end_trial(store.begin_trial(replace(start, trace=f"{text} ")), end)
        begun = sizes.singles // 4 / (time.perf_counter() - started)
    return Commits(whole, begun)


def run(console: Console, *, json_output: bool = False, sizes: Sizes | None = None) -> None:
    """Measure everything and print it, as tables or as one JSON object."""
    sizes = sizes or Sizes()
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
        folder = Path(name)
        path = folder / "large.db"
        progress.print(f"Writing {sizes.trials:,} trials, {sizes.devices} devices × {sizes.kernels} kernels …")
        started = time.perf_counter()
        fill(path, Shape(sizes.trials, sizes.devices, sizes.kernels))
        filled_s, size = time.perf_counter() - started, path.stat().st_size
        ours = ask_store(path, sizes)
        lookups = ask_lookup(path, sizes)
        progress.print(f"JSONDatabase, on what it loads in about {sizes.json_seconds:.0f} s …")
        theirs = ask_json_database(folder, sizes)
        commits = commit_singly(path, sizes)
        path.unlink()
        progress.print(f"Merging two databases of {', '.join(f'{trials:,}' for trials in sizes.merges)} trials …")
        merges = merging.measure(folder, sizes.merges, sizes.devices, sizes.kernels)
    ratio = theirs.per_record_s / ours.per_record_s
    if json_output:
        result = {"answers": [asdict(ours), asdict(theirs)], "ratio_per_record": ratio, "commits": asdict(commits)}
        result["lookups"] = {match.value: seconds for match, seconds in lookups.items()}
        result["merges"] = [asdict(merge) for merge in merges]
        console.print_json(json.dumps({"sizes": asdict(sizes), "file_bytes": size, "filled_s": filled_s, **result}))
        return
    _print_answers(console, ours, theirs, ratio, f"a file of {size / 1e6:.0f} MB")
    table = Table(title="A schedule of every kernel, by how near the nearest device is that has one")
    table.add_column("nearest")
    table.add_column("ms", justify="right")
    for match, seconds in lookups.items():
        table.add_row(match.value, f"{seconds * 1e3:,.0f}")
    console.print(table)
    table = Table(title="Trials committed one at a time, in the same database")
    table.add_column("how")
    table.add_column("a second", justify="right")
    table.add_row("whole, as from another program", f"{commits.whole:.0f}")
    table.add_row("begun on the disk, then ended", f"{commits.begun_and_ended:.0f}")
    console.print(table)
    console.print(merging.table(merges))


def _print_answers(console: Console, ours: Answer, theirs: Answer, ratio: float, size: str) -> None:
    table = Table(title=f"The best record of every kernel of one device: {size}")
    table.add_column("database")
    for header in ("records", "open ms", "best ms", "ns per record", "ratio"):
        table.add_column(header, justify="right")
    for answer, times in ((ours, 1.0), (theirs, ratio)):
        figures = (answer.open_s * 1e3, answer.best_s * 1e3, answer.per_record_s * 1e9)
        table.add_row(answer.name, f"{answer.records:,}", *(f"{figure:,.1f}" for figure in figures), f"{times:,.0f}")
    console.print(table)


def _load(folder: Path, records: int, kernels: int) -> Answer:
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target

    target = Target({"kind": "llvm", "num-cores": 2})
    modules = [_matmul(16 + i) for i in range(kernels)]
    files = [str(folder / f"{name}-{records}.json") for name in ("workloads", "records")]
    _write_records(modules, target, records, *files)
    started = time.perf_counter()
    database = ms.database.JSONDatabase(*files)
    opened = time.perf_counter()
    found = [database.query_tuning_record(module, target, "main") for module in modules]
    answered = time.perf_counter()
    if not all(found):
        raise AssertionError("JSONDatabase has no record of some workload")
    return Answer("JSONDatabase", records, opened - started, answered - opened)


def _matmul(n: int) -> Any:
    import tvm
    from tvm import te, topi

    a, b = te.placeholder((n, 64)), te.placeholder((64, 64))
    return tvm.IRModule({"main": te.create_prim_func([a, b, topi.matmul(a, b)])})


def _write_records(modules: list[Any], target: Any, records: int, workload_file: str, record_file: str) -> None:
    """As JSONDatabase writes them: one record a kernel through TVM, then its line again with other times."""
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.JSONDatabase(workload_file, record_file)
    schedule = _gpu_trace(modules[0])
    for module in modules:
        found = database.commit_workload(module)
        arguments = ms.arg_info.ArgInfo.from_entry_func(module)
        database.commit_tuning_record(ms.database.TuningRecord(schedule, found, [1e-3], target, arguments))
    path = Path(record_file)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    with path.open("w") as file:
        for i in range(records):
            index, (schedule, _, *rest) = lines[i % len(lines)]
            print(json.dumps([index, [schedule, [1e-3 + i * 1e-9] * 9, *rest]], separators=(",", ":")), file=file)


def _gpu_trace(module: Any) -> Any:
    """A schedule as MetaSchedule's for GPUs: tiled, bound to threads, both inputs staged in shared memory."""
    from tvm.s_tir import Schedule

    schedule = Schedule(module)
    block = schedule.get_sblock("T_matmul")
    i, j, k = (
        schedule.split(loop, schedule.sample_perfect_tile(loop, 4 if axis < 2 else 3))
        for axis, loop in enumerate(schedule.get_loops(block))
    )
    schedule.reorder(i[0], j[0], i[1], j[1], i[2], j[2], k[0], k[1], k[2], i[3], j[3])
    for tile, axis in enumerate(("blockIdx.x", "vthread.x", "threadIdx.x")):
        schedule.bind(schedule.fuse(i[tile], j[tile]), axis)
    for index in range(2):
        staged = schedule.cache_read(block, index, "shared")
        schedule.compute_at(staged, k[0])
        schedule.annotate(staged, "meta_schedule.cooperative_fetch", 4)
    return schedule.trace
