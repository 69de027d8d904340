"""Trials as search learns from them: of the right devices and kernels, with features, through merges and releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from synthetic_store import CONV, LLVMPIPE, MATMUL, RADEON, add_demo, failed, measure, ok, session, start

from wgtune.database.exchange.admin import check
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.taught_trials import TaughtTrial, featured_trials, lent_trials
from wgtune.database.reader import Reader
from wgtune.database.readonly import opened
from wgtune.database.schema.columns import BadValue
from wgtune.database.schema.records import TrialEnd, WorkloadInfo
from wgtune.database.schema.rows import schedule_features, to_features
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState

FAST, SLOW = {"point.threads": 8.0}, {"point.threads": 2.0}
SWIFTSHADER = replace(LLVMPIPE, key="vulkan:swiftshader", model="SwiftShader")


def teach(
    store: Store,
    at: int,
    kernel: WorkloadInfo,
    end: TrialEnd,
    trace: str,
    features: Mapping[str, float],
    version: int = 1,
) -> None:
    told = replace(start(at, kernel, trace), features=features, features_version=version)
    store.end_trial(store.begin_trial(told), end)


def featured(reader: Reader, within: bool = True, **changed: object) -> list[TaughtTrial]:
    asked = {"software": True, "runtime": Runtime.WGPU, "workload_ids": [MATMUL.id], "limit": 100} | changed
    return featured_trials(reader, 1, within=within, **asked)  # type: ignore[arg-type]


def test_trials_come_with_the_features_of_their_schedule(any_store: Store) -> None:
    add_demo(any_store)
    at = any_store.begin_session(session(LLVMPIPE))
    teach(any_store, at, MATMUL, ok(0.01), "fast", FAST)
    teach(any_store, at, MATMUL, failed(TrialState.WRONG_RESULT), "wrong", SLOW)
    teach(any_store, at, MATMUL, ok(0.02), "older", SLOW, version=0)
    teach(any_store, at, CONV, ok(0.03), "fast", SLOW)
    measure(any_store, at, MATMUL, ok(0.04), "none")
    assert [(one.latency_s, one.features) for one in featured(any_store)] == [(None, SLOW), (0.01, FAST)]
    assert [(one.workload_id, one.features) for one in featured(any_store, within=False)] == [(CONV.id, SLOW)]
    assert featured(any_store, software=False) == featured(any_store, runtime=Runtime.TVM) == []
    assert len(featured(any_store, runtime=Runtime.BROWSER)) == 2, "the same programs"
    assert [one.latency_s for one in featured(any_store, limit=1)] == [None], "the latest"
    assert featured(any_store)[0].session.device == LLVMPIPE


def test_other_devices_lend_their_fastest_schedules(any_store: Store) -> None:
    add_demo(any_store)
    own, other, gpu = (any_store.begin_session(session(device)) for device in (LLVMPIPE, SWIFTSHADER, RADEON))
    measure(any_store, own, MATMUL, ok(0.001), "own")
    teach(any_store, other, MATMUL, ok(0.02), "second", SLOW)
    measure(any_store, other, MATMUL, ok(0.01), "first")
    measure(any_store, other, MATMUL, ok(0.03), "third")
    measure(any_store, other, MATMUL, failed(TrialState.RUN_ERROR), "failed")
    measure(any_store, gpu, MATMUL, ok(0.0001), "gpu")
    lent = lent_trials(
        any_store, 1, software=True, runtime=Runtime.WGPU, workload_id=MATMUL.id, device_key=LLVMPIPE.key, limit=2
    )
    assert [(one.trace, one.latency_s, one.features) for one in lent] == [("first", 0.01, None), ("second", 0.02, SLOW)]


def test_merges_and_releases_carry_features(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "one.db")) as store:
        add_demo(store)
        at = store.begin_session(session(LLVMPIPE))
        before = content_digest(store)
        teach(store, at, MATMUL, ok(0.01), "fast", FAST)
        teach(store, at, MATMUL, ok(0.02), "slow", SLOW)
        assert content_digest(store) != before
        path, _ = write_release(store, "lab", tmp_path / "out", top=1)
    assert check(str(path)) == []
    with opened(str(path)) as reader:
        assert [one.features for one in featured(reader)] == [FAST], "of released schedules only"
        with reader.reading() as connection:
            assert len(connection.execute(schedule_features.select()).all()) == 1
    for _ in range(2):
        done = merge([str(path)], str(tmp_path / "two.db"))
    assert not any(done.added.values())
    with opened(str(tmp_path / "two.db")) as reader:
        assert [one.features for one in featured(reader)] == [FAST]


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": "b"}', '{"a": NaN}', '{"a": true}'])
def test_what_are_no_features_is_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadValue):
        to_features(text)
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        teach(store, store.begin_session(session(LLVMPIPE)), MATMUL, ok(0.01), "fast", FAST)
        with store.writing() as connection:
            connection.execute(update(schedule_features).values(features=text))
    (problem,) = check(str(tmp_path / "x.db"))
    assert "schedule_features" in problem
