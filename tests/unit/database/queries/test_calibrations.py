"""A device's latest calibration counts, of whichever session and database; older sessions have none."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

from folders import DATABASES
from synthetic_store import LLVMPIPE, MATMUL, RADEON, add_demo, measure, ok, session

from wgtune.database.exchange.admin import check
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.calibrations import latest_calibrations, launch_s
from wgtune.database.queries.layers import Layers
from wgtune.database.queries.trial_details import show_session
from wgtune.database.readonly import opened
from wgtune.database.store import Store
from wgtune.support.enums import Runtime

OLD = {"flops_per_s": 1e11, "bytes_per_s": 1e10, "launch_s": 4e-5}
NEW = {"flops_per_s": 2e11, "bytes_per_s": 2e10, "launch_s": 2e-5}

OF_REVISION_3 = "c84b6e180b024b103c0b702c30a40fd6c4b20e93fe71d66c7dda752dc58292ed"
"""SHA-256 of that frozen database's content, as the program of that revision computed it."""


def begin(store: Store, device=LLVMPIPE, calibration=None, runtime=Runtime.WGPU) -> int:
    return store.begin_session(replace(session(device, runtime=runtime), calibration=calibration or {}))


def test_the_latest_counts_for_each_device_and_runtime(any_store: Store) -> None:
    begin(any_store, calibration=OLD)
    begin(any_store, calibration=NEW)
    begin(any_store)
    begin(any_store, RADEON)
    begin(any_store, calibration=OLD, runtime=Runtime.TVM)
    assert latest_calibrations(any_store) == {(LLVMPIPE.key, Runtime.WGPU): NEW, (LLVMPIPE.key, Runtime.TVM): OLD}
    assert launch_s(any_store, LLVMPIPE.key) == 2e-5
    assert launch_s(any_store, LLVMPIPE.key, Runtime.TVM) == 4e-5
    assert launch_s(any_store, RADEON.key) is None and launch_s(any_store, "nobody's") is None


def test_the_latest_counts_of_several_databases(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "one.db")) as one, Store.open(str(tmp_path / "two.db")) as two:
        begin(one, calibration=OLD)
        begin(two, calibration=NEW)
        for layers in (Layers(one, [two]), Layers(two, [one])):
            assert latest_calibrations(layers) == {(LLVMPIPE.key, Runtime.WGPU): NEW}


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
        assert launch_s(reader, LLVMPIPE.key) == 2e-5


def test_it_counts_in_a_contents_digest_only_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATABASES / "revision_0003.sql").read_text())
    with Store.open(str(path)) as store:
        assert content_digest(store) == OF_REVISION_3
        with store.writing() as connection:
            connection.exec_driver_sql("UPDATE session SET calibration = ?", (json.dumps(NEW),))
        assert content_digest(store) != OF_REVISION_3
