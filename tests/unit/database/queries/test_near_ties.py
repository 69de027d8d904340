"""Records within noise of the best one: by their samples, of any layer, without reading every trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event
from synthetic_store import CONV, LLVMPIPE, MATMUL, RADEON, add_demo, failed, ok, session, start

from wgtune.database.exchange.release import write_release
from wgtune.database.queries.layers import Layers
from wgtune.database.queries.near_ties import Measured, near_ties, within_noise
from wgtune.database.reader import Reader
from wgtune.database.readonly import opened
from wgtune.database.schema.records import Record, TrialEnd, TrialKind
from wgtune.database.store import Store
from wgtune.support.enums import TrialState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def add(
    store: Store, number: int, trace: str, end: TrialEnd, launches: int = 1, kernel=MATMUL, kind=TrialKind.SEARCH
) -> None:
    begun = replace(start(number, kernel, trace, kind), launches=launches)
    store.end_trial(store.begin_trial(begun), end)


def timed(seconds: float, compile_s: float = 0.1) -> TrialEnd:
    return replace(ok(*[seconds] * 8), compile_s=compile_s)


def few_launches_first(_: str, measured: Measured) -> tuple[int, float]:
    return measured.launches, measured.compile_s


def ties(reader: Reader, top: int = 4, **options) -> list[str]:
    best = reader.best(LLVMPIPE.key, [MATMUL.id])
    return [one.trace for one in near_ties(reader, best, few_launches_first, top=top, **options)[MATMUL.id]]


def test_the_simplest_of_equals_comes_first(store: Store) -> None:
    number = store.begin_session(session())
    add(store, number, "fastest", timed(1.00e-3, 0.9), launches=2)
    add(store, number, "one launch", timed(1.02e-3, 0.9))
    add(store, number, "one launch, compiled soon", timed(1.03e-3, 0.2))
    add(store, number, "too slow", timed(1.2e-3, 0.01))
    add(store, number, "wrong", failed(TrialState.WRONG_RESULT))
    add(store, number, "of a check", timed(1.0e-3, 0.01), kind=TrialKind.CHECK)
    add(store, number, "another kernel's", timed(1.0e-3, 0.01), kernel=CONV)
    add(store, store.begin_session(session(RADEON)), "another device's", timed(1.0e-3, 0.01))
    assert ties(store) == ["one launch, compiled soon", "one launch", "fastest"]
    assert ties(store, top=1) == ["one launch, compiled soon", "fastest"], "the best is always there"
    assert ties(store, fits=lambda needs: False) == ["fastest"]


def test_a_program_is_there_once_with_its_figures(store: Store) -> None:
    number = store.begin_session(session())
    add(store, number, "a", timed(1.0e-3, 0.25))
    add(store, number, "a", timed(1.01e-3, 0.5))
    best = store.best(LLVMPIPE.key, [MATMUL.id])
    [one] = near_ties(store, best, few_launches_first)[MATMUL.id]
    assert one == best[MATMUL.id] and (one.launches, one.compile_s) == (1, 0.25)


def test_a_kernel_without_a_record_has_none(store: Store) -> None:
    assert near_ties(store, {}, few_launches_first) == {}


def test_records_of_a_release_are_equals_too(store: Store, tmp_path: Path) -> None:
    add(store, store.begin_session(session()), "released", timed(1.01e-3))
    path, _ = write_release(store, "lab", tmp_path / "out")
    own = Store.open(str(tmp_path / "own.db"))
    add_demo(own)
    add(own, own.begin_session(session()), "own", timed(1.0e-3), launches=2)
    with opened(str(path)) as release, Layers(own, [release]) as layers:
        best = layers.best(LLVMPIPE.key, [MATMUL.id])
        first, second = near_ties(layers, best, few_launches_first)[MATMUL.id]
        assert (first.trace, first.layer, second.trace, second.layer) == ("released", path.name, "own", "")
        assert layers.origin(first).release == path.name


def best_of(*samples_s: float) -> Record:
    with Store.memory() as store:
        add_demo(store)
        add(store, store.begin_session(session()), "a", ok(*samples_s))
        return store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id]


def test_noise_is_three_per_cent_or_overlapping_intervals() -> None:
    sharp = best_of(*[1.0] * 8)
    assert within_noise([1.03] * 8, 1.03, sharp) and not within_noise([1.04] * 8, 1.04, sharp)
    spread = [0.98, 0.99, 1.0, 1.04, 1.06, 1.06, 1.07, 1.08]
    assert within_noise(spread, 1.05, best_of(0.9, 0.95, 1.0, 1.0, 1.02, 1.05, 1.05, 1.06))
    assert not within_noise([1.05], 1.05, sharp), "one sample says nothing"
    wide = best_of(0.5, 0.6, 0.9, 1.0, 1.0, 1.5, 1.9, 2.0)
    assert not within_noise([0.5, 0.9, 1.2, 1.3, 1.3, 1.5, 1.9, 2.0], 1.3, wide), "nor does everything overlap"


def test_traces_of_the_chosen_alone_are_read(store: Store) -> None:
    number = store.begin_session(session())
    for index in range(40):
        add(store, number, f"trace {index}", timed(1e-3 + index * 1e-9))
    best, read = store.best(LLVMPIPE.key, [MATMUL.id]), []
    event.listen(store._engine, "before_cursor_execute", lambda *args: read.append(args[2]))
    near_ties(store, best, few_launches_first, top=3)
    assert len([query for query in read if "schedule.trace" in query]) <= 4
