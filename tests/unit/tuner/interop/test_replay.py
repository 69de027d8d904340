"""`wgtune db replay`: what the installed TVM makes of kept schedules, one child's death costing one schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tvm
from replayed_schedules import KERNEL, NO_SUCH_BLOCK, OTHER, TRACE, add, workload
from synthetic_store import LLVMPIPE, failed, ok
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.exchange import admin
from wgtune.database.schema.records import (
    ReplayStatus,
    TvmForm,
    WorkloadInfo,
)
from wgtune.database.store import Store
from wgtune.support.child_process import Child
from wgtune.support.enums import TrialState
from wgtune.tuner.interop.replay import replay_database

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    with Store.open(path) as opened:
        opened.add_workloads([workload(KERNEL)])
        yield opened


def best(store: Store) -> str:
    return store.best(LLVMPIPE.key, [KERNEL.id])[KERNEL.id].trace


def test_a_stale_record_is_kept_and_never_offered(store: Store, path: str) -> None:
    add(store, TRACE, ok(2e-3))
    add(store, NO_SUCH_BLOCK, ok(1e-3))
    assert best(store) == NO_SUCH_BLOCK
    found = replay_database(store)
    assert (found.asked, found.replayable, found.changed) == (2, 1, 0)
    [(kernel, why)] = found.stale
    assert kernel == KERNEL.name and "get-block" in why
    assert best(store) == TRACE
    assert store.counts(LLVMPIPE.key, [KERNEL.id])[KERNEL.id] == {TrialState.OK: 2}
    counts = admin.info(path).replays
    assert counts == {tvm.__version__: {ReplayStatus.REPLAYABLE: 1, ReplayStatus.STALE: 1}}


def test_what_is_known_is_not_asked_again_unless_wanted(store: Store) -> None:
    add(store, TRACE, ok(2e-3))
    add(store, NO_SUCH_BLOCK, failed(TrialState.WRONG_RESULT))
    assert replay_database(store).asked == 1
    assert replay_database(store).asked == 0
    assert replay_database(store, again=True).replayable == 1
    assert replay_database(store, everything=True).asked == 1
    assert replay_database(store, again=True, everything=True).asked == 2


def test_another_program_than_was_measured_is_told(store: Store) -> None:
    add(store, TRACE, ok(2e-3), digest="0" * 64)
    found = replay_database(store)
    assert (found.replayable, found.changed, found.stale) == (1, 1, [])


def test_a_trace_that_takes_tvm_down_costs_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, NO_SUCH_BLOCK, ok(1e-3))
    add(store, TRACE, ok(2e-3))
    send = Child.send

    def deadly(child: Child, message: dict[str, Any]) -> None:
        send(child, message)
        if message.get("trace") == NO_SUCH_BLOCK:
            child._process.kill()

    monkeypatch.setattr(Child, "send", deadly)
    found = replay_database(store)
    assert found.replayable == 1
    [(_, why)] = found.stale
    assert "takes TVM down" in why


def test_a_trace_that_takes_for_ever_is_stale(store: Store) -> None:
    add(store, TRACE, ok(2e-3))
    found = replay_database(store, limit_s=0.01)
    assert "longer than" in found.stale[0][1]


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (WorkloadInfo(**{**vars(workload(OTHER)), "forms": ()}), "no form"),
        (WorkloadInfo(**{**vars(workload(OTHER)), "forms": workload(KERNEL).forms}), "another kernel"),
        (WorkloadInfo(**{**vars(workload(OTHER)), "forms": (TvmForm(tvm.__version__, "{}", "0"),)}), "cannot be read"),
    ],
    ids=["bare", "swapped", "damaged"],
)
def test_kernels_that_cannot_be_had(store: Store, info: WorkloadInfo, why: str) -> None:
    store.add_workloads([info])
    add(store, TRACE, ok(1e-3), kernel=OTHER)
    [(kernel, told)] = replay_database(store).stale
    assert kernel == OTHER.name and why in told


def test_the_command(store: Store, path: str) -> None:
    add(store, NO_SUCH_BLOCK, ok(1e-3))
    result = CliRunner().invoke(app, ["db", "replay", "--db", path, "--no-releases", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["stale"][0]["kernel"] == KERNEL.name
    assert "1 stale" in CliRunner().invoke(app, ["db", "info", "--db", path]).stdout
    again = CliRunner().invoke(app, ["db", "replay", "--db", path, "--no-releases"]).stdout
    assert "already" in again and KERNEL.name in again and "get-block" in again


def test_a_kernel_as_another_version_writes_it_does_where_it_can_be_read(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "old.db")) as store:
        store.add_workloads([workload(KERNEL, "0.1")])
        add(store, TRACE, ok(1e-3))
        assert replay_database(store).replayable == 1


def test_a_kernel_in_this_versions_form_is_asked_about_again(tmp_path: Path) -> None:
    unreadable = WorkloadInfo(**{**vars(workload(KERNEL)), "forms": (TvmForm("0.1", "{}", "0"),)})
    with Store.open(str(tmp_path / "old.db")) as store:
        store.add_workloads([unreadable])
        add(store, TRACE, ok(1e-3))
        [(_, why)] = replay_database(store).stale
        assert "cannot be read" in why and not store.best(LLVMPIPE.key, [KERNEL.id])
        store.add_workloads([unreadable])
        assert replay_database(store).asked == 0
        store.add_workloads([workload(KERNEL)])
        assert replay_database(store).replayable == 1
        assert best(store) == TRACE
