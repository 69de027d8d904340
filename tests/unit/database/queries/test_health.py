"""Faults as data: quarantine across sessions, suspension, and how devices fare."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_store import CONV, LLVMPIPE, MATMUL, RADEON, TrialState, add_demo, failed, measure, ok, session
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.queries.health import crashes, device_health
from wgtune.database.sql_helpers import digest_of
from wgtune.database.store import Store
from wgtune.reports.listings.health import print_health, sentences
from wgtune.support.enums import QUARANTINE_AFTER, SUSPEND_AFTER, Runtime
from wgtune.tuner.session.trial_runner import Quarantine


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def crash(store, session_id, trace, state=TrialState.RUN_TIMEOUT, kernel=MATMUL):
    return measure(store, session_id, kernel, failed(state, f"{trace}\nended badly"), trace)


def test_two_crashes_in_whatever_session_are_a_quarantine(store):
    first = store.begin_session(session())
    crash(store, first, "bad")
    crash(store, first, "worse", TrialState.DEVICE_LOST)
    measure(store, first, MATMUL, failed(TrialState.WRONG_RESULT), "merely wrong")
    second = store.begin_session(session())
    measure(store, second, MATMUL, failed(TrialState.WRONG_RESULT), "merely wrong")
    assert Quarantine(store, second).refusal(MATMUL.id, digest_of("bad")) is None
    crash(store, second, "bad", TrialState.RUN_ERROR)
    quarantine = Quarantine(store, store.begin_session(session()))
    refused = quarantine.refusal(MATMUL.id, digest_of("bad"))
    assert refused is not None and refused.state is TrialState.RUN_ERROR and "2 times" in refused.message
    for innocent in ("worse", "merely wrong", "unknown"):
        assert quarantine.refusal(MATMUL.id, digest_of(innocent)) is None
    assert quarantine.refusal(CONV.id, digest_of("bad")) is None


def test_a_session_counts_its_own_crashes(store):
    quarantine = Quarantine(store, store.begin_session(session()))
    for state in (TrialState.COMPILE_TIMEOUT, TrialState.OK, TrialState.BUILD_ERROR, TrialState.COMPILE_TIMEOUT):
        assert quarantine.refusal(MATMUL.id, "digest") is None
        quarantine.record(MATMUL.id, "digest", state)
    assert quarantine.refusal(MATMUL.id, "digest") is not None


@pytest.mark.parametrize(
    "other",
    [
        replace(session(), driver="Mesa 99"),
        replace(session(), runtime=Runtime.BROWSER),
        session(RADEON),
    ],
    ids=["driver", "runtime", "device"],
)
def test_quarantine_is_of_one_device_runtime_and_driver(store, other):
    first = store.begin_session(session())
    for _ in range(QUARANTINE_AFTER):
        crash(store, first, "bad")
    elsewhere = store.begin_session(other)
    assert crashes(store, elsewhere, MATMUL.id) == {}
    assert crashes(store, first, MATMUL.id) == {digest_of("bad"): (2, TrialState.RUN_TIMEOUT)}


def test_what_each_device_came_to(store):
    radeon = store.begin_session(session(RADEON))
    measure(store, radeon, MATMUL, ok(1e-3), "good")
    llvmpipe = store.begin_session(session())
    crash(store, llvmpipe, "bad")
    last = crash(store, llvmpipe, "bad", TrialState.RUN_ERROR)
    measure(store, llvmpipe, CONV, failed(TrialState.BUILD_ERROR), "no")
    store.begin_session(replace(session(), driver="Mesa 99"))
    one, other = device_health(store)
    assert (one.device, other.device) == (LLVMPIPE, RADEON)
    assert one.trials == {TrialState.BUILD_ERROR: 1, TrialState.RUN_TIMEOUT: 1, TrialState.RUN_ERROR: 1}
    assert (one.ended, one.crashes, one.crashes_in_a_row, one.suspended) == (3, 2, 0, False)
    assert one.last_crash is not None
    assert (one.last_crash.trial_id, one.last_crash.kernel) == (last, MATMUL.name)
    assert [use.driver for use in one.drivers] == ["Mesa 22.3.6", "Mesa 99"]
    (bad,) = one.quarantined
    assert (bad.kernel, bad.crashes, bad.driver) == (MATMUL.name, 2, "Mesa 22.3.6")
    assert bad.states == (TrialState.RUN_TIMEOUT, TrialState.RUN_ERROR)
    assert other.last_crash is None and other.quarantined == [] and other.trials == {TrialState.OK: 1}


def test_a_device_of_which_only_crashes_come_is_suspended_until_something_runs(store):
    session_id = store.begin_session(session())
    measure(store, session_id, MATMUL, ok(1e-3), "good")
    for index in range(SUSPEND_AFTER):
        assert not device_health(store)[0].suspended
        crash(store, session_id, f"bad {index}")
    (health,) = device_health(store)
    assert health.suspended and health.crashes_in_a_row == SUSPEND_AFTER
    assert any("suspended" in line and "restart the machine" in line for line in sentences(health))
    measure(store, session_id, MATMUL, failed(TrialState.WRONG_RESULT), "wrong, but the worker lives")
    assert not device_health(store)[0].suspended


def test_table_and_json(store, tmp_path):
    console = Console(width=200, record=True, force_terminal=False)
    print_health(device_health(store), json=False, console=console)
    assert "no trials yet" in console.export_text()
    session_id = store.begin_session(session())
    for _ in range(SUSPEND_AFTER):
        crash(store, session_id, "bad")
    print_health(device_health(store), json=False, console=console)
    text = console.export_text()
    assert "suspended" in text and "run timeout" in text and MATMUL.name in text and "In quarantine" in text
    assert "wrong result" not in text and "ended badly" not in text, "only what happened, and one line of it"
    result = CliRunner().invoke(app, ["devices", "--health", "--db", str(tmp_path / "x.db"), "--json"])
    (data,) = json.loads(result.stdout)
    assert data["suspended"] is True and data["crashes"] == SUSPEND_AFTER and data["device"]["key"] == LLVMPIPE.key
    assert data["quarantined"][0]["crashes"] == SUSPEND_AFTER and data["drivers"][0]["sessions"] == 1
