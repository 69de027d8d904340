"""What counts as faster or slower, and what stops a release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_store import CONV, EMBED, LLVMPIPE, MATMUL, SOFTMAX, add_demo, failed, measure, ok, session
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.exchange.diff import Change, compare, diff
from wgtune.database.store import Store
from wgtune.support.enums import TrialState


def test_equal_distributions_seldom_differ() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(compare(*(0.01 * rng.lognormal(0, 0.05, (2, 20))))[0] is not Change.SAME for _ in range(1000))
    assert alarms <= 20


def test_ten_per_cent_is_found_in_both_directions() -> None:
    rng = np.random.default_rng(2)
    found = {Change.SLOWER: 0, Change.FASTER: 0}
    for _ in range(200):
        old, new = 0.01 * rng.lognormal(0, 0.05, (2, 20))
        found[Change.SLOWER] += compare(old, new * 1.1)[0] is Change.SLOWER
        found[Change.FASTER] += compare(old * 1.1, new)[0] is Change.FASTER
    assert min(found.values()) >= 190


def test_a_sure_but_small_difference_is_noise_and_so_are_few_samples() -> None:
    rng = np.random.default_rng(3)
    old, new = 0.01 * rng.lognormal(0, 0.001, (2, 50))
    assert compare(old, new * 1.01)[0] is Change.SAME
    assert compare([0.01], [0.02])[0] is Change.SAME


def _fill(path: Path, ends: dict) -> None:
    with Store.open(str(path)) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        for kernel, end in ends.items():
            measure(store, session_id, kernel, end, "trace")


def test_every_change_is_told_and_regressions_exit_with_1(tmp_path: Path) -> None:
    fast, slow = ok(*(0.010 + i / 1e5 for i in range(10))), ok(*(0.020 + i / 1e5 for i in range(10)))
    _fill(tmp_path / "old.db", {EMBED: fast, MATMUL: fast, CONV: fast})
    _fill(tmp_path / "new.db", {MATMUL: slow, CONV: failed(TrialState.WRONG_RESULT), SOFTMAX: fast, EMBED: fast})
    with Store.open(str(tmp_path / "old.db")) as old, Store.open(str(tmp_path / "new.db")) as new:
        changes = {one.workload_id: one.change for one in diff(old, new).kernels}
        assert changes == {
            EMBED.id: Change.SAME,
            MATMUL.id: Change.SLOWER,
            CONV.id: Change.LOST,
            SOFTMAX.id: Change.COVERED,
        }
        assert {one.device for one in diff(old, new).kernels} == {LLVMPIPE.key}
    unverified = ok(0.01, 0.01)
    _fill(tmp_path / "times.db", {EMBED: type(unverified)(TrialState.UNVERIFIED, (0.01,)), MATMUL: fast, CONV: fast})
    with Store.open(str(tmp_path / "old.db")) as old, Store.open(str(tmp_path / "times.db")) as new:
        assert diff(old, new).totals == {Change.UNVERIFIED: 1, Change.SAME: 2}

    run = CliRunner().invoke
    assert run(app, ["db", "diff", str(tmp_path / "old.db"), str(tmp_path / "new.db")]).exit_code == 1
    same = run(app, ["db", "diff", str(tmp_path / "old.db"), str(tmp_path / "old.db"), "--json"])
    assert same.exit_code == 0 and '"within noise": 3' in same.output


def test_merge_release_and_check_from_the_command_line(tmp_path: Path) -> None:
    run = CliRunner().invoke
    _fill(tmp_path / "a.db", {MATMUL: ok(0.01, 0.01)})
    merged = run(app, ["db", "merge", str(tmp_path / "a.db"), "--into", str(tmp_path / "b.db")])
    assert merged.exit_code == 0 and "1 trial" in merged.output
    released = run(app, ["db", "release", "lab", "--db", str(tmp_path / "b.db"), "-o", str(tmp_path / "out")])
    assert released.exit_code == 0, released.output
    (path,) = (tmp_path / "out").glob("*.wgtune.db")
    assert run(app, ["db", "check", "--db", str(path)]).exit_code == 0
    assert run(app, ["db", "diff", str(tmp_path / "b.db"), str(path)]).exit_code == 0
