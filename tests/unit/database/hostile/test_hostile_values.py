"""Values that wgtune would not have written: refused where they are read, listed by `wgtune db check`, never obeyed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hostile import EXAMPLES, IDS, change, make, read_everything, report_everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_store import LLVMPIPE, MATMUL, measure, ok, session, start

from wgtune.database.exchange import admin
from wgtune.database.schema.columns import MAX_TEXT_BYTES, BadValue, inflate
from wgtune.database.schema.tables import Base
from wgtune.database.store import Store
from wgtune.support.errors import DatabaseError, WgtuneError

pytestmark = pytest.mark.slow

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
COLUMNS = [(table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns]
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "x.db")


@pytest.fixture
def path(whole, tmp_path):
    return Path(shutil.copy(whole, tmp_path / "x.db"))


def put(path, table, column, value):
    """The value in every row of the column, past every check of SQLite's."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    with connection:
        connection.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?', (value,))
    connection.close()


def try_everything(path):
    """Raises nothing but errors in words; returns what `wgtune db check` says."""
    for read in (read_everything, lambda path: report_everything(path, path.with_name("page.html"))):
        try:
            read(path)
        except WgtuneError as error:
            assert error.message
    return admin.check(str(path))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("trial.needs", "[1, 2]"),
        ("trial.needs", "null"),
        ("trial.needs", '{"threads":'),
        ("trial.samples_s", '{"0": 1.0}'),
        ("trial.samples_s", '["fast"]'),
        ("trial.samples_s", "[[1.0]]"),
        ("trial.latency_s", "soon"),
        ("trial.state", "splendid"),
        ("trial.kind", ""),
        ("trial.runtime", "WGPU"),
        ("trial.started", "yesterday"),
        ("trial.ended", 12),
        ("trial.program_digest", b"\xff\xfe"),
        ("trial.launches", "many"),
        ("trial.max_error", "none"),
        ("session.toolchain", '{"tvm": 27}'),
        ("session.adapter", '"an adapter"'),
        ("session.adapter", "[" * 100_000 + "]" * 100_000),
        ("session.budget", "7"),
        ("session.calibration", '{"launch_s": "short"}'),
        ("session.calibration", '{"launch_s": -1e-6}'),
        ("session.calibration", '{"launch_s": Infinity}'),
        ("session.calibration", "[1e-6]"),
        ("session.outcome", "lost"),
        ("session.started", "2026-13-41 00:00:00.000000"),
        ("workload.params", '[["a", "wide", "float32"]]'),
        ("workload.params", '[["a"]]'),
        ("workload.outputs", '["last"]'),
        ("workload.flops", "lots"),
        ("workload.nbytes", 1.5),
        ("workload.text", "another kernel"),
        ("model.options", "[]"),
        ("model.steps_hint", "20 or so"),
        ("schedule.trace", b"x\x9c\x00"),
        ("schedule.trace", "text instead of bytes"),
        ("schedule.trace", zlib.compress(b"\xff not UTF-8")),
        ("schedule.trace", zlib.compress(b"another trace")),
        ("schedule.trace", zlib.compress(b"")[:-1]),
        ("device.software", 7.5),
        ("device.software", "yes"),
        ("device.vendor", b"\x00\x01"),
        ("opaque.kind", "mystery"),
        ("opaque.text", zlib.compress(b"other text")),
    ],
)
def test_a_value_of_the_wrong_shape_is_found(path, column, value):
    assert admin.check(str(path)) == [], "whole before"
    table, name = column.split(".")
    put(path, table, name, value)
    problems = try_everything(path)
    assert any(problem.startswith(f"{table} ") or f"{table}." in problem for problem in problems), problems


def test_samples_and_latency_that_contradict_each_other_are_found(path):
    put(path, "trial", "latency_s", 1e-9)
    assert any("median" in problem for problem in admin.check(str(path)))
    with pytest.raises(DatabaseError, match="median"):  # else it would be the best of all
        read_everything(path)
    put(path, "trial", "samples_s", "[]")
    assert any("no samples" in problem for problem in admin.check(str(path)))


def test_an_option_of_a_model_that_makes_no_sense(path):
    for options in ('{"batch": "two"}', '{"batch": -1}', '{"width": []}', '{"guidance": "perhaps"}'):
        put(path, "model", "options", options)
        with pytest.raises(DatabaseError, match="model demo"):
            report_everything(path, path.with_name("page.html"))


@FUZZ
@given(place=st.sampled_from(COLUMNS), value=JSON.map(json.dumps) | st.binary(max_size=40) | st.text(max_size=20))
def test_any_value_in_any_column(place, value, whole, tmp_path):
    path = tmp_path / "x.db"
    for stale in tmp_path.glob("x.db*"):
        stale.unlink(missing_ok=True)  # its log goes with the last connection, which may still be closing
    shutil.copy(whole, path)
    try:
        put(path, *place, value)
    except (UnicodeEncodeError, sqlite3.IntegrityError):  # not even SQLite keeps it
        return
    try_everything(path)


def test_a_zlib_bomb_costs_no_memory(path):
    bomb = zlib.compress(bytes(1 << 29), 9)
    assert len(bomb) < 1 << 20
    put(path, "schedule", "trace", bomb)
    tracemalloc.start()
    with Store.open(str(path)) as store, pytest.raises(DatabaseError, match="unfolds to more"):
        store.best(LLVMPIPE.key, IDS)
    assert any("unfolds to more" in problem for problem in admin.check(str(path)))
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_TEXT_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"x", zlib.compress(b"a") + b"more", zlib.compress(b"a" * 99)[:-4]])
def test_what_is_no_whole_stream_does_not_unfold(data):
    with pytest.raises(BadValue):
        inflate(data)


def test_a_trace_of_a_million_instructions(path):
    trace = json.dumps([[["EnterPostproc", [], [], []]] * 1_000_000, []])
    with Store.open(str(path)) as store:
        session_id = store.begin_session(session())
        before = sum(store.counts(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].values())
        measure(store, session_id, MATMUL, ok(1e-9), trace)
        started = time.monotonic()
        assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trace == trace
        assert time.monotonic() - started < 10
        with pytest.raises(DatabaseError, match="longer than"):
            store.begin_trial(start(session_id, MATMUL, "x" * (MAX_TEXT_BYTES + 1)))
        assert sum(store.counts(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].values()) == before + 1, "nothing is left of it"
    assert admin.check(str(path)) == []


def test_half_a_character_is_refused_in_words(path):
    with Store.open(str(path)) as store, pytest.raises(DatabaseError, match="surrogate"):
        store.best("vulkan:\ud800", [MATMUL.id])


def test_a_reference_to_nothing_is_found(path):
    change(path, "PRAGMA foreign_keys = OFF", "UPDATE trial SET schedule_id = 9999 WHERE id = 1")
    assert any("refers to a schedule" in problem for problem in admin.check(str(path)))
    change(path, "DELETE FROM workload WHERE id = 3")
    assert any("that is not there" in problem for problem in try_everything(path))
