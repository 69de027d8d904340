"""Stock MetaSchedule, as quick as it can be: nothing is built, and times are given."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import tvm
from tvm import te
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

CPU = tvm.target.Target({"kind": "llvm", "num-cores": 1})
FAST, SLOW, BROKEN = 1e-4, 2e-4, None
SEARCH = {"population_size": 16, "init_min_unmeasured": 8, "genetic_num_iters": 2}
"""Options of stock evolutionary search. Its own population, 512, takes ten times as long for two candidates."""


def scaled_matmul(prefix: str) -> tvm.IRModule:
    """Two stages, whose blocks and buffers are called as ``prefix`` says."""
    a, b = te.placeholder((32, 32), name=f"{prefix}A"), te.placeholder((32, 32), name=f"{prefix}B")
    k = te.reduce_axis((0, 32))
    product = te.compute((32, 32), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name=f"{prefix}C")
    doubled = te.compute((32, 32), lambda i, j: product[i, j] * 2.0, name=f"{prefix}D")
    return tvm.IRModule({"main": te.create_prim_func([a, b, doubled])})


@derived_object
class NoBuilder(ms.builder.PyBuilder):
    """Builds nothing: what is tested is what becomes of the results, and TVM's own takes 10 s to start."""

    def build(self, build_inputs: list[Any]) -> list[Any]:
        # TVM removes the folder of each artifact afterwards.
        return [ms.builder.BuilderResult(f"{tempfile.mkdtemp()}/nothing.so", None) for _ in build_inputs]


@derived_object
class Future(ms.runner.PyRunnerFuture):
    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if self.seconds is None:
            return ms.runner.RunnerResult(None, "it crashed")
        return ms.runner.RunnerResult([self.seconds] * 2, None)


@derived_object
class GivenTimes(ms.runner.PyRunner):
    """Says of one candidate after another what it is told to."""

    def __init__(self, times: Iterator[float | None]) -> None:
        super().__init__()
        self.times = times

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        return [Future(next(self.times)) for _ in runner_inputs]


def tune(folder: Path, module: Any, database: Any, *times: float | None, **options: Any) -> Any:
    """Stock `tune_tir`, or `tune_relax` where ``params`` are among the options; a candidate for each of ``times``."""
    # TVM expects every handler of its logger to have a name; those by which pytest reads along have none.
    logger = logging.getLogger("tvm.s_tir.meta_schedule")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    function = ms.tune_tir
    if "params" in options:
        function = ms.relax_integration.tune_relax
        options["target"] = CPU
    else:
        options = {"target": CPU, "num_tuning_cores": 1} | options
    # Parsing the intrinsics of matrix units, which no rule for a plain CPU uses, takes 15 s.
    intrinsics = "tvm.s_tir.tensor_intrin"
    with patch.dict(sys.modules, {intrinsics: sys.modules.get(intrinsics, ModuleType(intrinsics))}):
        return function(
            module,
            work_dir=str(folder),
            max_trials_global=len(times),
            num_trials_per_iter=2,
            builder=NoBuilder(),
            runner=GivenTimes(iter(times)),
            database=database,
            cost_model="random",
            strategy=ms.search_strategy.EvolutionarySearch(**SEARCH),
            **({"seed": 1} | options),
        )
