"""What a session's device was measured to do is kept with it, in merges and releases too; older sessions have none."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

from folders import DATABASES
from synthetic_store import LLVMPIPE, MATMUL, add_demo, measure, ok, session

from wgtune.database.exchange.admin import check
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.trial_details import show_session
from wgtune.database.readonly import opened
from wgtune.database.store import Store

NEW = {"flops_per_s": 2e11, "bytes_per_s": 2e10, "launch_s": 2e-5}

OF_REVISION_3 = "c84b6e180b024b103c0b702c30a40fd6c4b20e93fe71d66c7dda752dc58292ed"
"""SHA-256 of that frozen database's content, as the program of that revision computed it."""


def begin(store: Store, calibration=None) -> int:
    return store.begin_session(replace(session(LLVMPIPE), calibration=calibration or {}))


def test_a_session_shows_its_calibration() -> None:
    with Store.memory() as store:
        assert show_session(store, begin(store, calibration=NEW)).info.calibration == NEW
        assert show_session(store, begin(store)).info.calibration == {}


def test_merges_and_releases_carry_it(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "one.db")) as store:
        add_demo(store)
        measure(store, begin(store, calibration=NEW), MATMUL, ok(0.01), "fast")
        path, _ = write_release(store, "lab", tmp_path / "out")
    assert check(str(path)) == []
    merge([str(path)], str(tmp_path / "two.db"))
    with opened(str(tmp_path / "two.db")) as reader:
        (kept,) = [one.info.calibration for one in reader.sessions(device_key=LLVMPIPE.key) if one.info.calibration]
        assert kept == NEW


def test_it_counts_in_a_contents_digest_only_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATABASES / "revision_0003.sql").read_text())
    with Store.open(str(path)) as store:
        assert content_digest(store) == OF_REVISION_3
        with store.writing() as connection:
            connection.exec_driver_sql("UPDATE session SET calibration = ?", (json.dumps(NEW),))
        assert content_digest(store) != OF_REVISION_3
