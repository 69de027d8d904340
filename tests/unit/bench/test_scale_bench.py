"""The scale bench measures what it says: small, without looking at the times."""

from __future__ import annotations

import io
import json
import sqlite3
import sys

import pytest
from folders import REPOSITORY
from rich.console import Console

from wgtune.database.exchange import admin
from wgtune.database.store import Store
from wgtune.support.enums import Match

sys.path.insert(0, str(REPOSITORY))

from tests.bench import scale
from tests.bench.large_database import Shape, device, fill, workload

SHAPE = Shape(trials=1200, devices=3, kernels=8)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.db"
    fill(path, SHAPE)
    return path


def test_a_large_database_is_whole(large):
    assert admin.check(str(large)) == []
    assert sum(sum(states.values()) for states in admin.info(str(large)).trials.values()) == SHAPE.trials


def test_best_agrees_with_a_plain_search_through_every_trial(large):
    ids = [workload(i).id for i in range(SHAPE.kernels)]
    plain = sqlite3.connect(large).execute(
        "SELECT d.key, w.digest, min(t.latency_s) FROM trial t JOIN device d ON d.id = t.device_id "
        "JOIN workload w ON w.id = t.workload_id WHERE t.state = 'ok' GROUP BY d.key, w.digest"
    )
    expected = {(key, digest): latency for key, digest, latency in plain}
    with Store.open(str(large)) as store:
        for index in range(SHAPE.devices):
            key = device(index).key
            for fits in (None, lambda needs: True):
                best = store.best(key, ids, fits=fits)
                assert {(key, i): r.latency_s for i, r in best.items()} == {
                    k: v for k, v in expected.items() if k[0] == key
                }


def test_the_bench_runs_whole():
    text = io.StringIO()
    sizes = scale.Sizes(trials=400, devices=2, kernels=4, json_seconds=0.05, singles=8, merges=(80, 160))
    scale.run(Console(file=text), json_output=True, sizes=sizes)
    result = json.loads(text.getvalue())
    ours, theirs = result["answers"]
    assert (ours["records"], theirs["name"]) == (400, "JSONDatabase")
    assert [merge["trials"] for merge in result["merges"]] == [80, 160]
    assert set(result["lookups"]) == {match.value for match in Match}
    assert result["ratio_per_record"] > 0 and result["file_bytes"] > 0
    assert all(result["commits"][way] > 0 for way in ("whole", "begun_and_ended"))
