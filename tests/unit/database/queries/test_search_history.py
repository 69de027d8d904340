"""Each kernel's trials in the order in which a search made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event, text
from synthetic_store import (
    CONV,
    LLVMPIPE,
    MATMUL,
    RADEON,
    SOFTMAX,
    add_demo,
    baseline,
    failed,
    measure,
    ok,
    session,
    start,
)

from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.search_history import search_histories
from wgtune.database.readonly import opened
from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DatabaseError

IDS = [MATMUL.id, CONV.id, SOFTMAX.id]


def steps(store: Store, kernel=MATMUL, device=LLVMPIPE, runtime=Runtime.WGPU) -> list[tuple[str, float | None]]:
    found = search_histories(store, device.key, IDS, runtime).get(kernel.id, [])
    return [(one.kind.value, one.latency_s) for one in found]


def test_trials_come_in_order_with_failures_and_of_one_device_and_runtime(any_store: Store) -> None:
    add_demo(any_store)
    first = any_store.begin_session(session())
    baseline(any_store, first, MATMUL, ok(4e-3))
    baseline(any_store, first, CONV, ok(9e-3))
    measure(any_store, first, MATMUL, ok(3e-3), "a", TrialKind.TRANSFER)
    measure(any_store, first, MATMUL, failed(TrialState.BUILD_ERROR), "b")
    measure(any_store, first, MATMUL, ok(5e-3), "c", TrialKind.CHECK)
    any_store.begin_trial(start(first, MATMUL, "still running"))
    measure(any_store, any_store.begin_session(session(RADEON)), MATMUL, ok(1e-3), "d")
    measure(any_store, any_store.begin_session(session(runtime=Runtime.BROWSER)), MATMUL, ok(2e-3), "e")
    second = any_store.begin_session(session())
    measure(any_store, second, MATMUL, ok(2e-3), "f")
    assert steps(any_store) == [("baseline", 4e-3), ("transfer", 3e-3), ("search", None), ("search", 2e-3)]
    assert steps(any_store, CONV) == [("baseline", 9e-3)] and steps(any_store, SOFTMAX) == []
    assert steps(any_store, device=RADEON) == [("search", 1e-3)]
    assert steps(any_store, runtime=Runtime.BROWSER) == [("search", 2e-3)]
    sessions = [one.session_id for one in search_histories(any_store, LLVMPIPE.key, IDS, Runtime.WGPU)[MATMUL.id]]
    assert sessions == [first, first, first, second]


def test_a_repeat_is_no_trial_and_its_time_takes_the_place_of_the_first(any_store: Store) -> None:
    add_demo(any_store)
    made = any_store.begin_session(session())

    def again(trace: str, end, program: str = "") -> None:
        begun = replace(start(made, MATMUL, trace), repeat=True)
        any_store.add_trial(replace(begun, program_digest=program or begun.program_digest), end)

    for trace, seconds in (("a", 3e-3), ("b", 2e-3), ("c", 1e-3), ("d", 5e-3)):
        measure(any_store, made, MATMUL, ok(seconds), trace)
    again("a", ok(4e-3))
    again("b", failed(TrialState.RUN_ERROR))  # the same program: bad luck
    again("c", failed(TrialState.RUN_ERROR), "e" * 64)  # another one: that is what the schedule is now
    again("d", failed(TrialState.DEVICE_LOST), "e" * 64)
    assert steps(any_store) == [("search", 4e-3), ("search", 2e-3), ("search", None), ("search", 5e-3)]


def test_a_release_and_what_is_merged_from_it_hold_no_search(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        made = store.begin_session(session())
        baseline(store, made, MATMUL, ok(4e-3))
        for number in range(5):
            measure(store, made, MATMUL, ok(1e-3 * (3 - number % 3)), f"{number}")
        store.end_session(made, SessionOutcome.COMPLETED)
        assert len(steps(store)) == 6
        release, _ = write_release(store, "r", tmp_path, top=1)
    merge([str(release)], str(tmp_path / "merged.db"))
    for name in (release, tmp_path / "merged.db"):
        with opened(str(name)) as reader:
            assert reader.best(LLVMPIPE.key, IDS)[MATMUL.id].latency_s == 1e-3
            assert search_histories(reader, LLVMPIPE.key, IDS, Runtime.WGPU) == {}


def test_one_statement_answers_for_every_kernel() -> None:
    with Store.memory() as store:
        add_demo(store)
        made = store.begin_session(session())
        for kernel in (MATMUL, CONV, SOFTMAX):
            for number in range(3):
                measure(store, made, kernel, ok(1e-3), f"{kernel.name} {number}")
        asked: list[str] = []
        event.listen(store._engine, "before_cursor_execute", lambda *words: asked.append(words[2]))
        found = search_histories(store, LLVMPIPE.key, IDS, Runtime.WGPU)
    assert {key: len(trials) for key, trials in found.items()} == dict.fromkeys(IDS, 3)
    assert len([statement for statement in asked if "trial" in statement]) == 1


def test_a_latency_that_is_no_number_is_damage() -> None:
    with Store.memory() as store:
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(1e-3), "a")
        with store.writing() as connection:
            connection.execute(text("UPDATE trial SET latency_s = 'soon'"))
        with pytest.raises(DatabaseError, match="soon"):
            search_histories(store, LLVMPIPE.key, IDS, Runtime.WGPU)
