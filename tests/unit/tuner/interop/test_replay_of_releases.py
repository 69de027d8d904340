"""What the installed TVM makes of a release's schedules: kept in the user's own database, respected by every reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from replayed_schedules import KERNEL, NO_SUCH_BLOCK, TRACE, add, workload
from synthetic_store import CONV, LLVMPIPE, MATMUL, add_demo, failed, measure, ok, session
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.layers import Layers, open_layers
from wgtune.database.queries.ranked_schedules import RankedSchedules
from wgtune.database.queries.remeasured import top_schedules
from wgtune.database.queries.replay_status import book, release_replays
from wgtune.database.queries.transfer_lookup import lookup
from wgtune.database.readonly import opened
from wgtune.database.schema.records import DeviceInfo, ReplayRecord, ReplayStatus, TrialKind, TvmForm
from wgtune.database.sql_reader import SqlReader, installed_tvm
from wgtune.database.store import Store
from wgtune.support.enums import Match, TrialState
from wgtune.tuner.interop.replay import replay_database

pytestmark = pytest.mark.slow


@pytest.fixture
def release(tmp_path: Path) -> Iterator[SqlReader]:
    """A baseline of 9 s and two schedules of 1 and 2 s for MATMUL, and one for CONV."""
    with Store.open(str(tmp_path / "lab.db")) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        measure(store, session_id, MATMUL, ok(9.0), "untuned", TrialKind.BASELINE)
        measure(store, session_id, MATMUL, ok(1.0), "fast")
        measure(store, session_id, MATMUL, ok(2.0), "slow")
        measure(store, session_id, CONV, ok(3.0), "conv")
        path, _ = write_release(store, "lab", tmp_path)
    with opened(str(path)) as reader:
        yield reader


def stale(kernel: str, trace: str) -> ReplayRecord:
    return ReplayRecord(kernel, trace, installed_tvm(), ReplayStatus.STALE, "no such block")


def test_no_layer_offers_what_the_users_database_knows_to_be_stale(any_store: Store, release: SqlReader) -> None:
    any_store.add_workloads(release.workloads([MATMUL.id]).values())
    book(any_store, [stale(MATMUL.id, "fast")])
    with Layers(any_store, [release]) as layers:
        assert layers.best(LLVMPIPE.key, [MATMUL.id, CONV.id])[MATMUL.id].trace == "slow"
        assert layers.best(LLVMPIPE.key, [MATMUL.id], fits=lambda needs: True)[MATMUL.id].trace == "slow"
        assert layers.times([LLVMPIPE.key], {MATMUL.id: ["fast", "slow"]}) == {(LLVMPIPE.key, MATMUL.id, "slow"): 2.0}
        assert {one.trace for one in layers.tried(LLVMPIPE.key, MATMUL.id)} == {"untuned", "slow"}
        assert layers.counts(LLVMPIPE.key, [MATMUL.id])[MATMUL.id] == {TrialState.OK: 3}
        other = DeviceInfo("vulkan:swiftshader", "vulkan", "google", "", "SwiftShader", True)
        found = lookup(layers, other, [MATMUL.id])[MATMUL.id]
        assert (found.match, found.record.trace) == (Match.PORTABLE, "slow")
    with Layers(Store.memory(), [release]) as layers:
        assert layers.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trace == "fast"


def test_a_stale_baseline_of_a_release_is_no_baseline(release: SqlReader) -> None:
    with Store.memory() as own:
        own.add_workloads(release.workloads([MATMUL.id]).values())
        book(own, [stale(MATMUL.id, "fast"), stale(MATMUL.id, "slow")])
        assert Layers(own, [release]).baselines(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 9.0
        book(own, [stale(MATMUL.id, "untuned")])
        assert not Layers(own, [release]).baselines(LLVMPIPE.key, [MATMUL.id])
        assert not Layers(own, [release]).best(LLVMPIPE.key, [MATMUL.id])


def test_many_stale_schedules_are_one_parameter(tmp_path: Path) -> None:
    traces = [f"trace {number}" for number in range(1200)]
    with Store.open(str(tmp_path / "lab.db")) as lab, Store.memory() as own:
        add_demo(lab)
        session_id = lab.begin_session(session())
        for number, trace in enumerate(traces):
            measure(lab, session_id, MATMUL, ok(1.0 + number), trace)
        own.add_workloads([MATMUL])
        book(own, [stale(MATMUL.id, trace) for trace in traces[:-1]])
        with Layers(own, [lab]) as layers:
            assert layers.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trace == traces[-1]


def test_what_is_stale_is_tried_by_nobody_and_its_failures_stay_known() -> None:
    with Store.memory() as store:
        add_demo(store)
        session_id = store.begin_session(session())
        measure(store, session_id, MATMUL, ok(1.0), "fast")
        measure(store, session_id, MATMUL, ok(2.0), "slow")
        measure(store, session_id, MATMUL, failed(TrialState.WRONG_RESULT), "wrong")
        book(store, [stale(MATMUL.id, "fast"), stale(MATMUL.id, "wrong")])
        assert [one.trace for one in store.tried(LLVMPIPE.key, MATMUL.id)] == ["slow", "wrong"]
        assert store.times([LLVMPIPE.key], {MATMUL.id: ["fast", "slow"]}) == {(LLVMPIPE.key, MATMUL.id, "slow"): 2.0}
        [top] = top_schedules(store, LLVMPIPE.key, [MATMUL.id], session().runtime, 10)[MATMUL.id]
        assert top.trace == "slow"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A release of a schedule that applies and of a faster one that does not."""
    with Store.open(str(tmp_path / "real.db")) as store:
        store.add_workloads([workload(KERNEL)])
        add(store, TRACE, ok(2e-3))
        add(store, NO_SUCH_BLOCK, ok(1e-3))
        path, _ = write_release(store, "real", tmp_path)
    return path


def test_answers_about_a_release_are_kept_in_the_users_own_database(real: Path, tmp_path: Path) -> None:
    before = real.read_bytes()
    with Store.open(str(tmp_path / "own.db")) as own, opened(str(real)) as release:
        assert release_replays(own, release, installed_tvm()).answers == {}
        found = replay_database(own, releases=[release])
        assert (found.asked, found.replayable, [name for name, _ in found.stale]) == (2, 1, [KERNEL.name])
        [known] = found.known_stale
        assert not known.own and "get-block" in known.why
        assert replay_database(own, releases=[release]).asked == 0
        assert replay_database(own, releases=[release, release], again=True).asked == 2
        counts = release_replays(own, release, installed_tvm())
        assert (counts.schedules, counts.answers) == (2, {ReplayStatus.REPLAYABLE: 1, ReplayStatus.STALE: 1})
        assert not own.sessions() and not own.counts(LLVMPIPE.key, [KERNEL.id])
        # What the user measures of it, too, is the user's: it was asked about already.
        add(own, NO_SUCH_BLOCK, ok(1e-3))
        found = replay_database(own, releases=[release])
        assert found.asked == 0 and found.known_stale[0].own
    with open_layers(str(tmp_path / "own.db"), releases=[real], shipped=False) as layers:
        assert layers.best(LLVMPIPE.key, [KERNEL.id])[KERNEL.id].trace == TRACE
    assert real.read_bytes() == before


def test_the_command_asks_about_releases(real: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.db"
    Store.open(str(own)).close()
    options = ["--db", str(own), "--no-releases", "--releases", str(real)]
    told = CliRunner().invoke(app, ["db", "info", *options]).stdout
    assert f"{real.name}: 2 schedules, 2 not asked about yet" in told
    result = CliRunner().invoke(app, ["db", "replay", *options])
    assert result.exit_code == 0 and "1 stale" in result.stdout and "a release's" in result.stdout
    told = CliRunner().invoke(app, ["db", "info", *options]).stdout
    assert f"{real.name}: 2 schedules, 1 replayable, 1 stale" in told
    listed = json.loads(CliRunner().invoke(app, ["db", "replay", *options, "--json"]).stdout)
    assert listed["asked"] == 0 and listed["known_stale"][0]["kernel"] == KERNEL.name


def test_a_release_itself_keeps_no_answers(real: Path) -> None:
    result = CliRunner().invoke(app, ["db", "replay", "--db", str(real), "--no-releases"])
    assert result.exit_code != 0 and "--releases" in str(getattr(result.exception, "hint", ""))


def test_what_is_offered_to_other_programs_leaves_it_out_as_well(release: SqlReader) -> None:
    with Store.memory() as own:
        own.add_workloads(release.workloads([MATMUL.id]).values())
        book(own, [stale(MATMUL.id, "fast")])
        ranked = RankedSchedules(Layers(own, [release]), LLVMPIPE.key, session().runtime)
        assert [one.trace for one in ranked.of(MATMUL.id)] == ["slow", "untuned"]


def test_a_kernel_has_the_forms_of_all_layers(release: SqlReader) -> None:
    with Store.memory() as own:
        [info] = release.workloads([MATMUL.id]).values()
        own.add_workloads([replace(info, name="mine", forms=(TvmForm("0.1", "{}", "1"), *info.forms))])
        newer = Store.memory()
        newer.add_workloads([replace(info, forms=(TvmForm("0.1", "other", "2"), TvmForm("9.9", "{}", "3")))])
        found = Layers(own, [release, newer]).workloads([MATMUL.id])[MATMUL.id]
        assert found.name == "mine"
        assert [(form.tvm_version, form.module) for form in found.forms] == [
            ("0.1", "{}"), (info.forms[0].tvm_version, "{}"), ("9.9", "{}"),
        ]  # fmt: skip
