"""What merging two databases costs, in time and memory, at three sizes: whether it is linear.

As a program, `python -m tests.bench.merging INTO SOURCE …` merges once and prints its seconds and its largest memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from .large_database import Shape, fill

SIZES = (25_000, 50_000, 100_000)
"""Trials in each of the two databases."""


@dataclass(frozen=True)
class Merge:
    """One merge of two databases of so many trials each: seconds by the clock and of the processor, largest memory."""

    trials: int
    seconds: float
    cpu_s: float
    peak_mib: float


def measure(folder: Path, sizes: tuple[int, ...] = SIZES, devices: int = 50, kernels: int = 200) -> list[Merge]:
    """Merges two databases of each size into a new one, each time in a process of its own."""
    found = []
    for trials in sizes:
        sources = [folder / f"{trials}-{origin}.db" for origin in (1, 2)]
        for origin, source in enumerate(sources, 1):
            fill(source, Shape(trials, devices, kernels, origin))
        into = folder / f"{trials}.db"
        command = [sys.executable, "-m", __name__, str(into), *map(str, sources)]
        root = Path(__file__).parents[2]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout)
        if done["trials"] != 2 * trials:
            raise AssertionError(f"{done['trials']} of {2 * trials} trials arrived")
        found.append(Merge(trials, done["seconds"], done["cpu_s"], done["peak_mib"]))
        for path in folder.glob(f"{trials}*.db*"):
            path.unlink()
    return found


def table(merges: list[Merge]) -> Table:
    """The figures; the ratio is of CPU time per trial to that of the smallest size: 1 where merging is linear."""
    shown = Table(title="Two databases merged into a new one")
    for header in ("trials in each", "seconds", "of the CPU", "CPU µs per trial", "ratio", "largest memory MiB"):
        shown.add_column(header, justify="right")
    first = merges[0].cpu_s / merges[0].trials
    for merge in merges:
        each = merge.cpu_s / merge.trials
        figures = (f"{merge.seconds:.1f}", f"{merge.cpu_s:.1f}", f"{each / 2 * 1e6:.0f}", f"{each / first:.2f}")
        shown.add_row(f"{merge.trials:,}", *figures, f"{merge.peak_mib:.0f}")
    return shown


def _merge(into: str, sources: list[str]) -> None:
    from wgtune.database.exchange.merge import merge

    started = time.perf_counter()
    done = merge(sources, into)
    seconds, cpu = time.perf_counter() - started, time.process_time()
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_mib": _peak_mib(), "trials": done.added["trial"]}))


def _peak_mib() -> float:
    """This process's largest resident memory. Linux's ru_maxrss begins with the parent's: it outlives exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


if __name__ == "__main__":
    _merge(sys.argv[1], sys.argv[2:])
