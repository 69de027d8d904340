"""The database as TVM's own: stock MetaSchedule tunes into it, finds its results again, and applies what is in it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stock_tuning
import tvm
import tvm_ffi
from stock_tuning import BROKEN, CPU, FAST, SLOW, scaled_matmul
from synthetic_store import LLVMPIPE, session
from tvm import relax, te
from tvm.s_tir import meta_schedule as ms
from tvm.script import ir as I
from tvm.script import relax as R

from wgtune.database import ScheduleDatabase
from wgtune.database.queries.replay_status import book
from wgtune.database.schema.records import ReplayRecord, ReplayStatus, SessionOutcome, TrialEnd, TrialKind, TrialStart
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import replay, trace_to_json
from wgtune.tuner.ir import Kernel
from wgtune.tuner.session.registration import register_workloads

pytestmark = pytest.mark.slow


def tripled() -> tvm.IRModule:
    """A workload that nothing was measured of."""
    a = te.placeholder((8, 8), name="a")
    return tvm.IRModule({"main": te.create_prim_func([a, te.compute((8, 8), lambda i, j: a[i, j] * 3.0)])})


@I.ir_module
class Doubling:
    @R.function
    def main(x: R.Tensor((16, 16), "float32"), y: R.Tensor((16, 16), "float32")) -> R.Tensor((16, 16), "float32"):
        with R.dataflow():
            product = R.matmul(x, y)
            doubled = R.add(product, product)
            R.output(doubled)
        return doubled


Tune = Callable[..., Any]


@pytest.fixture
def tune(tmp_path: Path) -> Tune:
    return partial(stock_tuning.tune, tmp_path / "work")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "tuned.db")


def opened(url: str, policy: str = "measured", device: str = "cpu:here", **options: Any) -> Any:
    return ScheduleDatabase(url, device=device, policy=policy, shipped=False, **options)


def test_stock_tune_tir_finds_its_results_again_whatever_the_names(url: str, tune: Tune) -> None:
    database = opened(url)
    tuned = tune(scaled_matmul("x"), database, SLOW, FAST, BROKEN, SLOW)
    assert tuned.same_as(database) and len(database) == len(database.get_all_tuning_records()) == 3
    for module in (scaled_matmul("x"), scaled_matmul("other")):
        record = database.query(module, CPU, kind="record")
        assert [float(second) for second in record.run_secs] == [FAST] * 2
        assert record.target.kind.name == "llvm"
        schedule = database.query_schedule(module, CPU, "main")
        assert tvm_ffi.structural_equal(schedule.mod, record.as_measure_candidate().sch.mod)
        lowered = tvm.compile(schedule.mod, target=CPU)
        assert lowered is not None
    assert [len(database.get_top_k(ms.database.Workload(scaled_matmul("y")), top)) for top in (0, 2, 9)] == [0, 2, 3]
    assert database.query_schedule(tripled(), CPU, "main") is None


def test_what_stock_tvm_measures_is_kept_as_unverified(url: str, tune: Tune) -> None:
    database = opened(url)
    tune(scaled_matmul("x"), database, SLOW, BROKEN)
    database.close()
    kernel = make_kernel("scaled_matmul", scaled_matmul("any")["main"])
    with Store.open(url) as store:
        (kept,) = store.sessions()
        assert kept.info.runtime is Runtime.TVM and kept.outcome is SessionOutcome.COMPLETED
        assert json.loads(kept.info.target)["kind"] == "llvm" and kept.info.reason == "stock MetaSchedule"
        counts = store.counts("cpu:here", [kernel.id], Runtime.TVM)[kernel.id]
        assert counts == {TrialState.UNVERIFIED: 1, TrialState.RUN_ERROR: 1}
        assert store.best("cpu:here", [kernel.id], Runtime.TVM) == {}, "nobody verified it"
        assert [one.state for one in store.tried("cpu:here", kernel.id, Runtime.TVM)] == [TrialState.RUN_ERROR]
    assert len(opened(url, policy="verified", runtime="tvm")) == 0


def test_stock_traces_replay_on_our_kernels(url: str, tune: Tune) -> None:
    """They are stored in our names, so everything that wgtune does with traces works on them."""
    database = opened(url)
    tune(scaled_matmul("x"), database, SLOW, FAST)
    (first, _) = database.get_all_tuning_records()
    kernel = make_kernel("scaled_matmul", scaled_matmul("any")["main"])
    again = replay(kernel, trace_to_json(first.as_measure_candidate().sch))
    wanted = database.query_schedule(scaled_matmul("x"), CPU, "main")
    assert tvm_ffi.structural_equal(again.mod["main"].body, wanted.mod["main"].body)


def test_a_later_run_goes_on_from_an_earlier_one(url: str, tune: Tune) -> None:
    """Evolutionary search starts from the database's best, in the names of the module that it tunes."""
    tune(scaled_matmul("x"), opened(url), SLOW, FAST)
    database = opened(url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune(scaled_matmul("renamed"), database, SLOW, SLOW)
    # Two of the first run; of the second run's two, one may be a schedule of the first.
    assert 3 <= len(database) <= 4
    with Store.open(url) as store:
        assert len(store.sessions()) == 2


def test_stock_tune_relax_and_apply_database(url: str, tune: Tune) -> None:
    module = relax.transform.LegalizeOps()(Doubling)
    module = relax.transform.FuseTIR()(relax.transform.FuseOps()(relax.transform.AnnotateTIROpPattern()(module)))
    database = opened(url)
    tune(module, database, FAST, SLOW, params=None)
    with CPU, database:
        applied = relax.transform.MetaScheduleApplyDatabase()(module)
    (scheduled,) = (func for _, func in applied.functions_items() if isinstance(func, tvm.tirx.PrimFunc))
    assert scheduled.attrs["tirx.is_scheduled"]
    assert relax.build(applied, target=CPU) is not None


def tuned_by_wgtune(url: str, kernel: Kernel, *seconds: float) -> list[str]:
    """A record for each of the kernel's baselines, with the given times; returns their traces."""
    traces = [trace_to_json(schedule) for schedule in baseline_schedules(kernel, TIERS["default"])][: len(seconds)]
    with Store.open(url) as store:
        register_workloads(store, [kernel])
        number = store.begin_session(session(LLVMPIPE))
        for trace, second in zip(traces, seconds, strict=True):
            start = TrialStart(number, kernel.id, TrialKind.SEARCH, trace, "", {}, 1, 0)
            store.add_trial(start, TrialEnd(TrialState.OK, (second,), max_error=0.0))
    return traces


def test_what_wgtune_verified_is_applied_to_a_model_with_other_names(url: str) -> None:
    kernel = make_kernel("scaled_matmul", scaled_matmul("a")["main"])
    (slow, fast) = tuned_by_wgtune(url, kernel, 2e-3, 1e-3)
    asked = tvm.IRModule({"fused_matmul": scaled_matmul("b")["main"].with_attr("global_symbol", "fused_matmul")})
    target = tvm.target.Target("vulkan")
    with target, opened(url, policy="verified", device=LLVMPIPE.key):
        applied = relax.transform.MetaScheduleApplyDatabase()(asked)
    assert applied["fused_matmul"].attrs["tirx.is_scheduled"]
    assert applied["fused_matmul"].attrs["global_symbol"] == "fused_matmul"
    assert tvm_ffi.structural_equal(applied["fused_matmul"].body, replay(kernel, fast).mod["main"].body)
    assert not tvm_ffi.structural_equal(applied["fused_matmul"].body, replay(kernel, slow).mod["main"].body)
    with target, opened(url, policy="verified", device="vulkan:another"):
        assert "tirx.is_scheduled" not in relax.transform.MetaScheduleApplyDatabase()(asked)["fused_matmul"].attrs


def test_a_stale_schedule_is_not_offered_and_one_that_does_not_apply_is_passed_over(url: str) -> None:
    kernel = make_kernel("scaled_matmul", scaled_matmul("a")["main"])
    (slow, fast) = tuned_by_wgtune(url, kernel, 2e-3, 1e-3)
    database = opened(url, policy="verified", device=LLVMPIPE.key)
    asked = ms.database.Workload(scaled_matmul("b"))
    with Store.open(url) as store:
        number = store.begin_session(session(LLVMPIPE))
        for second, trace in enumerate(
            ("[[[0]], []]", "{", '[[["GetSBlock",[],["nothing","main"],["b0"]]],[]]', "[[], [[7, 1]]]"), 1
        ):
            start = TrialStart(number, kernel.id, TrialKind.SEARCH, trace, "", {}, 1, 0)
            store.add_trial(start, TrialEnd(TrialState.OK, (second * 1e-6,), max_error=0.0))
    with pytest.warns(UserWarning, match="passed over") as told:
        found = database.get_top_k(asked, 1)
    assert len(told) == 4 and len(found) == 1
    assert [float(second) for second in found[0].run_secs] == [1e-3]
    with Store.open(url) as store:
        book(store, [ReplayRecord(kernel.id, fast, tvm.__version__, ReplayStatus.STALE, "for the test")])
    with pytest.warns(UserWarning, match="passed over"):
        assert [float(second) for second in database.get_top_k(asked, 1)[0].run_secs] == [2e-3]
    assert slow


def test_times_of_another_way_of_measuring_are_refused(url: str, tune: Tune) -> None:
    """They would be ranked against times that they cannot be compared with."""
    with pytest.raises(RuntimeError, match=r'opened for wgpu: .*runtime="tvm"'):  # TVM makes that of every error
        tune(scaled_matmul("x"), opened(url, policy="verified"), FAST)
    with pytest.raises(ValueError, match="nonsense"):
        opened(url, policy="nonsense")


def test_unverified_is_opt_in_by_policy_and_never_by_runtime(url: str, tune: Tune) -> None:
    tune(scaled_matmul("x"), opened(url, device="cuda:some-gpu", runtime="tvm"), FAST)
    assert len(opened(url, device="cuda:some-gpu", runtime=Runtime.TVM)) == 1
    assert len(opened(url, device="cuda:some-gpu")) == 0, "a CUDA device's own times are of TVM's CUDA runtime"


def test_shipped_releases_are_read_too(tmp_path: Path) -> None:
    """The package's release has SD 1.5's text encoder on llvmpipe: one of its kernels gets its schedule."""
    database = ScheduleDatabase(str(tmp_path / "empty.db"), device="vulkan:llvmpipe")
    records = database.get_all_tuning_records()
    assert len(records) == len(database) > 50
    record = records[0]
    assert database.query_schedule(record.workload.mod, CPU, "main") is not None
    assert len(ScheduleDatabase(str(tmp_path / "empty.db"), device="vulkan:llvmpipe", shipped=False)) == 0
