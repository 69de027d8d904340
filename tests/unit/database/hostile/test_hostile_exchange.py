"""What strangers' files do to merging, comparing, releasing and to what is read below the user's own: one error in
words or the whole content, and a database that is as whole as before."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from hostile import EXAMPLES, IDS, change, make
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from synthetic_store import CONV, LLVMPIPE, RADEON, add_demo, measure, ok, session

from wgtune.database.exchange import admin
from wgtune.database.exchange.diff import diff
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.layers import Layers, open_releases
from wgtune.database.queries.replay_status import release_replays, unasked
from wgtune.database.queries.transfer_lookup import lookup
from wgtune.database.readonly import opened
from wgtune.database.schema.tables import Base
from wgtune.database.store import Store
from wgtune.support.errors import DatabaseError, WgtuneError

pytestmark = pytest.mark.slow

COLUMNS = [(table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns]
VALUES = [
    "NULL", "-1", "0", "1.5", "-0.0", "1e999", "9223372036854775807", "''", "'x'", "'[]'", "'{}'", "'null'", "'[NaN]'",
    "'[1, [2]]'", "'[-1.0]'", "x'00ff'", "zeroblob(100000)", "printf('%.*c', 300000, 'a')", "'9999-12-31 23:59:59.9'",
    "'0001-01-01 00:00:00.000000'", "'ok'", "char(0) || 'a'", "char(27) || '[31m'",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "x.db")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own, which shares kernels with the stranger's."""
    path = tmp_path_factory.mktemp("mine") / "mine.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        measure(store, store.begin_session(session(RADEON)), CONV, ok(1e-3), "x")
    return path


def copies(folder: Path, *paths: Path) -> list[Path]:
    for left in folder.glob("*.db*"):
        left.unlink(missing_ok=True)
    return [Path(shutil.copy(path, folder / f"{index}.db")) for index, path in enumerate(paths)]


def digest(path: Path) -> str:
    with Store.open(str(path)) as store:
        return content_digest(store)


def merge_whole(source: Path, into: Path) -> None:
    before = digest(into)
    try:
        merge([str(source)], str(into))
    except WgtuneError as error:
        assert error.message and digest(into) == before
        return
    assert admin.check(str(into)) == []


def exchange(path: Path, own: Path, folder: Path) -> None:
    """Everything that is done with a stranger's file; raises nothing but errors in words."""
    merge_whole(path, own)
    with opened(str(own)) as mine:
        for ask in (lambda it: diff(it, mine), lambda it: diff(mine, it), lambda it: unasked(it, "x", own=mine)):
            _in_words(path, ask)
        _in_words(path, lambda it: release_replays(mine, it, "x"))
        _in_words(path, lambda it: Layers(mine, [it]).best(LLVMPIPE.key, IDS))
        _in_words(path, lambda it: lookup(Layers(mine, [it]), RADEON, IDS))
    released = _in_words(path, lambda it: write_release(it, "evil", folder, top=2))
    if released is not None:
        assert admin.check(str(released[0])) == []


def _in_words(path: Path, ask):
    try:
        with opened(str(path)) as reader:
            return ask(reader)
    except WgtuneError as error:
        assert error.message
        return None


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.sampled_from(COLUMNS), value=st.sampled_from(VALUES), one=st.booleans())
def test_any_value_in_any_column(place, value, one, whole, mine, tmp_path):
    path, own = copies(tmp_path, whole, mine)
    table, column = place
    where = f' WHERE rowid = (SELECT max(rowid) FROM "{table}")' if one else ""
    try:
        change(path, f'UPDATE OR IGNORE "{table}" SET "{column}" = {value}{where}')
    except sqlite3.IntegrityError:  # not even SQLite keeps it
        return
    exchange(path, own, tmp_path / "released")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(swaps=st.lists(st.tuples(st.integers(0), st.integers(0)), min_size=1, max_size=3))
@example(swaps=[(669, 1)])  # a device without a name
def test_pages_of_another_file(swaps, whole, mine, tmp_path):
    path, own = copies(tmp_path, whole, mine)
    data, other, page = bytearray(whole.read_bytes()), mine.read_bytes(), 4096
    for here, there in swaps:
        start, origin = here % (len(data) // page) * page, there % (len(other) // page) * page
        data[start : start + page] = other[origin : origin + page]
    path.write_bytes(data)
    exchange(path, own, tmp_path / "released")


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE model SET id = 99", "refers to a model 1, which is not there"),
        ("UPDATE trial SET workload_id = 99 WHERE id = 1", "refers to a workload 99, which is not there"),
        ("UPDATE trial SET latency_s = 1e-12 WHERE id = 1", "not the median of its samples"),
        ("UPDATE trial SET samples_s = '[]' WHERE id = 1", "has no samples"),
        ("UPDATE workload SET text = 'another'", "workload"),
    ],
)
def test_what_check_would_find_is_not_merged(statement, what, whole, mine, tmp_path):
    path, own = copies(tmp_path, whole, mine)
    change(path, "PRAGMA foreign_keys = OFF", statement)
    before = digest(own)
    with pytest.raises(DatabaseError, match=what):
        merge([str(path)], str(own))
    assert digest(own) == before
    with opened(str(path)) as reader, pytest.raises(DatabaseError, match=what):
        write_release(reader, "evil", tmp_path / "released", top=9)


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "long", "zero"])
def test_what_is_no_file(kind, whole, mine, tmp_path):
    own, good = copies(tmp_path, mine, whole)
    path = tmp_path / "evil.wgtune.db"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    path = {"long": tmp_path / ("a" * 300), "zero": Path("a\0b")}.get(kind, path)
    before = digest(own)
    with pytest.raises(DatabaseError):
        merge([str(path)], str(own))
    assert digest(own) == before
    with pytest.raises(DatabaseError):
        merge([str(good)], str(path))
    told: list[str] = []
    if kind in ("fifo", "loop"):
        with open_releases([tmp_path], shipped=False, warn=told.append) as readers:
            assert not readers and "evil.wgtune.db is left out" in told[0]
    elif kind != "folder":
        with pytest.raises(DatabaseError, match="no release"), open_releases([path], shipped=False):
            pass


def test_a_missing_source_leaves_no_database_behind(tmp_path):
    with pytest.raises(DatabaseError, match="no database"):
        merge([str(tmp_path / "missing.db")], str(tmp_path / "new.db"))
    assert not list(tmp_path.iterdir())
