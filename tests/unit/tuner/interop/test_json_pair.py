"""The pair of files of TVM's JSONDatabase, both ways, against TVM's own writer and reader."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stock_tuning
import tvm
import tvm_ffi
from stock_tuning import BROKEN, CPU, FAST, SLOW, scaled_matmul
from synthetic_store import opaque_entries
from tvm import te
from tvm.s_tir import meta_schedule as ms
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database import ScheduleDatabase
from wgtune.database.queries.replay_status import book
from wgtune.database.schema.records import OpaqueKind, ReplayRecord, ReplayStatus, SessionOutcome
from wgtune.database.store import Store
from wgtune.database.tvm.modules import named_by_position, workload_of
from wgtune.database.tvm.traces import trace_values
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import UsageError
from wgtune.tuner.interop import json_import
from wgtune.tuner.interop.json_export import export_pair, only_runtime
from wgtune.tuner.interop.json_import import import_pair
from wgtune.tuner.interop.json_pair import RECORDS, WORKLOADS

pytestmark = pytest.mark.slow

DEVICE = "cpu:build-server"


def plus_one() -> tvm.IRModule:
    a = te.placeholder((16, 16), name="a")
    return tvm.IRModule({"main": te.create_prim_func([a, te.compute((16, 16), lambda i, j: a[i, j] + 1.0, name="b")])})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as stock `tune_tir` leaves it: four records of two workloads, one of them a failure."""
    folder = tmp_path_factory.mktemp("written") / "stock"
    stock_tuning.tune(folder, scaled_matmul("x"), "json", SLOW, FAST, BROKEN)
    stock_tuning.tune(folder, plus_one(), "json", FAST)
    return folder


@pytest.fixture
def stock(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder that the test may change."""
    return Path(shutil.copytree(written, tmp_path / "stock"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(str(tmp_path / "own.db")) as opened:
        yield opened


def states(store: Store) -> dict[TrialState, int]:
    total: dict[TrialState, int] = {}
    with store.reading() as connection:
        for (state,) in connection.exec_driver_sql("SELECT state FROM trial"):
            total[TrialState(state)] = total.get(TrialState(state), 0) + 1
    return total


def encoded(module: bytes) -> str:
    """As TVM writes a string in base64: behind its length."""
    return base64.b64encode(len(module).to_bytes(8, "little") + module).decode()


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))


def test_what_stock_tvm_wrote_becomes_unverified_trials(stock: Path, store: Store) -> None:
    done = import_pair(store, stock, DEVICE)
    assert (done.workloads, done.known, done.opaque) == (2, 0, [])
    assert done.added == {"unverified": 3, "run_error": 1}
    assert states(store) == {TrialState.UNVERIFIED: 3, TrialState.RUN_ERROR: 1}
    (session,) = store.sessions()
    assert session.outcome is SessionOutcome.COMPLETED and session.info.device.key == DEVICE
    assert session.info.runtime is Runtime.TVM and json.loads(session.info.target)["kind"] == "llvm"
    assert session.info.reason == "import of stock"


def test_imported_schedules_are_found_by_stock_tvm_under_other_names(stock: Path, store: Store, tmp_path: Path) -> None:
    import_pair(store, stock, DEVICE)
    database = ScheduleDatabase(str(tmp_path / "own.db"), device=DEVICE, policy="measured", shipped=False)
    theirs = ms.database.JSONDatabase(work_dir=str(stock)).query_schedule(scaled_matmul("x"), CPU, "main")
    ours = database.query_schedule(scaled_matmul("renamed"), CPU, "main")
    assert tvm_ffi.structural_equal(ours.mod, theirs.mod)


def test_importing_again_adds_what_is_new_and_nothing_twice(stock: Path, store: Store, tmp_path: Path) -> None:
    import_pair(store, stock, DEVICE)
    again = import_pair(store, stock, DEVICE)
    assert (again.added, again.known) == ({}, 4) and len(store.sessions()) == 1
    stock_tuning.tune(stock, scaled_matmul("x"), "json", SLOW / 2, SLOW / 3, seed=7)
    grown = import_pair(store, stock, DEVICE)
    # Of the second run's two schedules one may be known from the first.
    added = sum(grown.added.values())
    assert 1 <= added <= 2 and added + grown.known == 6
    other = import_pair(store, stock, "cpu:another")
    assert sum(other.added.values()) == 4 + added, "what one device measured says nothing of another"


def test_what_is_exported_is_read_and_applied_by_stock_tvm(stock: Path, store: Store, tmp_path: Path) -> None:
    import_pair(store, stock, DEVICE)
    out = tmp_path / "out"
    done = export_pair(store, out, DEVICE, only_runtime(store, DEVICE, unverified=True), unverified=True)
    assert (done.workloads, done.records, done.skipped) == (2, 3, [])
    theirs = ms.database.JSONDatabase(work_dir=str(out), allow_missing=False)
    assert len(theirs) == 3 and sorted(path.name for path in out.iterdir()) == [RECORDS, WORKLOADS]
    for module in (scaled_matmul("any"), plus_one()):
        assert theirs.has_workload(module)
        record = theirs.query_tuning_record(module, CPU, "main")
        assert [float(second) for second in record.run_secs] == [FAST, FAST]
        assert record.target.kind.name == "llvm" and len(record.args_info) == len(module["main"].params)
    wanted = ms.database.JSONDatabase(work_dir=str(stock)).query_schedule(scaled_matmul("x"), CPU, "main")
    got = theirs.query_schedule(scaled_matmul("any"), CPU, "main")
    assert tvm_ffi.structural_equal(got.mod["main"].body, wanted.mod["main"].body)


def test_a_round_trip_adds_nothing(stock: Path, store: Store, tmp_path: Path) -> None:
    import_pair(store, stock, DEVICE)
    export_pair(store, tmp_path / "out", DEVICE, Runtime.TVM, unverified=True)
    back = import_pair(store, tmp_path / "out", DEVICE)
    assert (back.added, back.known, back.opaque) == ({}, 3, [])


def test_only_the_fastest_only_what_is_verified_and_nothing_stale(stock: Path, store: Store, tmp_path: Path) -> None:
    import_pair(store, stock, DEVICE)
    one = export_pair(store, tmp_path / "one", DEVICE, Runtime.TVM, top=1, unverified=True)
    assert (one.workloads, one.records) == (2, 2)
    with pytest.raises(UsageError, match="no verified schedules"):
        only_runtime(store, DEVICE)
    with pytest.raises(UsageError, match="nothing to export"):
        export_pair(store, tmp_path / "none", DEVICE, Runtime.TVM)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="exists"):
        export_pair(store, tmp_path / "one", DEVICE, Runtime.TVM, unverified=True)
    (_, slower) = ScheduleDatabase(str(tmp_path / "own.db"), device=DEVICE, policy="measured", shipped=False).get_top_k(
        ms.database.Workload(named_by_position(scaled_matmul("x"))), 2
    )
    trace = json.dumps(trace_values(slower.trace), separators=(",", ":"))
    identity = workload_of(scaled_matmul("x"))
    assert identity is not None
    book(store, [ReplayRecord(identity, trace, tvm.__version__, ReplayStatus.STALE, "for the test")])
    rest = export_pair(store, tmp_path / "rest", DEVICE, Runtime.TVM, unverified=True)
    assert rest.records == 2


def test_files_of_another_version_are_kept_and_never_offered(stock: Path, store: Store, tmp_path: Path) -> None:
    """As the pair of 2023 is: TVM's graph of those days, of nodes that are gone."""
    graph = {"root": 1, "nodes": [{"type_key": ""}, {"type_key": "IRModule", "attrs": {"functions": "2"}}]}
    old = json.dumps({**graph, "attrs": {"tvm_version": "0.11.dev0"}}).encode()
    rewrite(stock / WORKLOADS, lambda lines: [json.dumps(["123", encoded(old)]), *lines[1:]])
    done = import_pair(store, stock, DEVICE)
    assert done.added == {"unverified": 1} and done.workloads == 1
    assert [(file, line) for file, line, _ in done.opaque] == [(RECORDS, 1), (RECORDS, 2), (RECORDS, 3), (WORKLOADS, 1)]
    assert done.opaque[0][2].startswith("its workload cannot be read: TVM 0.11.dev0 wrote it") and done.kept == 4
    kept = opaque_entries(store)
    assert [entry.kind for entry in kept] == [OpaqueKind.RECORD] * 3 + [OpaqueKind.WORKLOAD]
    assert encoded(old) in kept[3].text
    again = import_pair(store, stock, DEVICE)
    assert len(again.opaque) == 4 and again.kept == 0 and len(opaque_entries(store)) == 4
    assert states(store) == {TrialState.UNVERIFIED: 1}


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("no base 64!", "base64"),
        (base64.b64encode(b"{}").decode(), "cut off"),
        (base64.b64encode(b"\xff" * 16).decode(), "cut off"),
        (encoded(b"{"), "Expecting"),
        (encoded(b"[1]"), "not a graph"),
        (encoded(b'{"nodes": []}'), "another form"),
        (encoded(b'{"nodes": [], "root_index": 7}'), ""),
        (encoded(b'{"nodes": [{"type": "None"}], "root_index": 0}'), ""),
        (7, "not a hash and a module"),
    ],
)
def test_a_damaged_workload_costs_its_own_records(stock: Path, store: Store, module: object, why: str) -> None:
    rewrite(stock / WORKLOADS, lambda lines: [json.dumps(["123", module]), *lines[1:]])
    done = import_pair(store, stock, DEVICE)
    assert done.added == {"unverified": 1} and len(done.opaque) == 4
    assert why in done.opaque[-1][2] and done.opaque[-1][2]


HOSTILE = {
    "no JSON": "{",
    "another shape": '{"a": 1}',
    "deep": "[" * 100_000,
    "no such workload": "[7, [[[], []], [1.0], null, null]]",
    "a negative workload": "[-1, [[[], []], [1.0], null, null]]",
    "a record of three": "[0, [[[], []], [1.0], null]]",
    "no instructions": '[0, ["import os", [1.0], null, null]]',
    "a decision outside": "[0, [[[], [[100000, [1]]]], [1.0], null, null]]",
    "an unknown instruction": '[0, [[[["System", [], ["rm"], []]], []], [1.0], null, null]]',
    "no block": '[0, [[[["GetSBlock", [], ["nothing", "main"], ["b0"]]], []], [1.0], null, null]]',
    "times in words": '[0, [[[], []], ["fast"], null, null]]',
    "a target in words": '[0, [[[], []], [1.0], "llvm -x", null]]',
    "too many instructions": json.dumps([0, [[[["EnterPostproc", [], [], []]] * 150_000, []], [1.0], None, None]]),
}


def test_what_is_wrong_with_one_line_costs_that_line(stock: Path, store: Store) -> None:
    rewrite(stock / RECORDS, lambda lines: [*HOSTILE.values(), *lines])
    done = import_pair(store, stock, DEVICE)
    assert [line for _, line, _ in done.opaque] == list(range(1, len(HOSTILE) + 1))
    assert all(why and "Traceback" not in why for _, _, why in done.opaque)
    assert done.added == {"unverified": 3, "run_error": 1}
    assert {entry.text for entry in opaque_entries(store)} == set(HOSTILE.values())


def test_an_entry_that_takes_tvm_down_costs_that_entry(
    stock: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The child is killed as it looks at the second record."""
    child = tmp_path / "dying.py"
    child.write_text(
        "import os\n"
        "from wgtune.tuner.interop import json_child as real\n"
        "def dying(read):\n"
        "    def answer(module, request):\n"
        "        if request['record'] == 'die': os.kill(os.getpid(), 11)\n"
        "        return read(module, request)\n"
        "    return answer\n"
        "real._ANSWERS['read'] = dying(real._ANSWERS['read'])\n"
        "real.serve(real.main)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(json_import, "CHILD", "dying")
    rewrite(stock / RECORDS, lambda lines: [lines[0], '[0, "die"]', *lines[1:]])
    done = import_pair(store, stock, DEVICE)
    [(file, line, why)] = done.opaque
    assert (file, line) == (RECORDS, 2) and "takes TVM down" in why and signal.Signals.SIGSEGV.name in why
    assert sum(done.added.values()) == 4


def test_an_entry_over_which_tvm_takes_for_ever(stock: Path, store: Store) -> None:
    done = import_pair(store, stock, DEVICE, limit_s=0.01)
    assert not done.added and len(done.opaque) == 6
    assert all("longer than" in why for _, _, why in done.opaque)


def test_what_is_no_such_pair_is_refused_in_words(stock: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"no {WORKLOADS}"):
        import_pair(store, tmp_path / "empty", DEVICE)
    with pytest.raises(UsageError, match="no device's key"):
        import_pair(store, stock, "gpu")
    (stock / RECORDS).write_bytes(b"\xff\xfe\x00" * 10)
    with pytest.raises(UsageError, match="UTF-8"):
        import_pair(store, stock, DEVICE)
    assert store.sessions() == []


def test_the_command_line(stock: Path, tmp_path: Path) -> None:
    db, out = str(tmp_path / "cli.db"), str(tmp_path / "exported")
    run = CliRunner()
    rewrite(stock / RECORDS, lambda lines: ["{", *lines])
    told = run.invoke(app, ["db", "import", str(stock), "--device", DEVICE, "--db", db])
    assert told.exit_code == 0, told.output
    assert "added 4 trials of cpu:build-server: 1 run error, 3 unverified" in told.output
    assert "1 entry cannot be read by the installed TVM" in told.output
    again = run.invoke(app, ["db", "import", str(stock), "--device", DEVICE, "--db", db, "--json"])
    assert json.loads(again.stdout)["known"] == 4
    info = run.invoke(app, ["db", "info", "--db", db])
    assert RECORDS in info.output and "not JSON" in info.output
    assert json.loads(run.invoke(app, ["db", "info", "--db", db, "--json"]).stdout)["opaque"][0]["entries"] == 1
    refused = run.invoke(app, ["db", "export", "-o", out, "--device", DEVICE, "--db", db, "--no-releases"])
    assert isinstance(refused.exception, UsageError) and "no verified schedules" in str(refused.exception)
    told = run.invoke(app, ["db", "export", "-o", out, "--db", db, "--unverified", "--no-releases"])
    assert told.exit_code == 0 and "wrote 3 records of 2 workloads" in told.output
    assert len(ms.database.JSONDatabase(work_dir=out, allow_missing=False)) == 3


def test_a_shipped_release_can_be_exported(tmp_path: Path) -> None:
    out = tmp_path / "shipped"
    command = ["db", "export", "-o", str(out), "--device", "vulkan:llvmpipe", "--top", "1", "--json"]
    told = CliRunner().invoke(app, command, env={"WGTUNE_DB": None, "XDG_DATA_HOME": str(tmp_path)})
    assert told.exit_code == 0, told.output
    done = json.loads(told.stdout)
    assert done["records"] == done["workloads"] >= 80 and done["runtime"] == "wgpu"
    assert len(ms.database.JSONDatabase(work_dir=str(out), allow_missing=False)) == done["records"]
