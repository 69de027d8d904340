"""Which model and device a report is about: what was tuned last, or what the words name, and nothing by guesswork."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_store import CAPTURE, LLVMPIPE, RADEON, add_demo, session

from wgtune.database.store import Store
from wgtune.reports.selection import select_device, select_model
from wgtune.support.errors import UsageError

OTHER = "d" * 64


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "test.db")) as store:
        yield store


def test_an_empty_database_says_what_to_type(store):
    for select in (select_model, select_device):
        with pytest.raises(UsageError) as caught:
            select(store)
        assert caught.value.hint.startswith("wgtune tune")


def test_the_default_is_what_was_tuned_last(store):
    add_demo(store)
    add_demo(store, capture_key=OTHER, name="other")
    store.begin_session(session(RADEON, capture_key=OTHER))
    store.begin_session(session(LLVMPIPE))
    assert select_model(store).capture_key == CAPTURE
    assert select_device(store) == LLVMPIPE
    assert select_device(store, capture_key=OTHER) == RADEON
    assert select_device(store, capture_key="never tuned") == LLVMPIPE


def test_models_by_name_and_key(store):
    add_demo(store)
    add_demo(store, capture_key=OTHER, batch=4)
    assert select_model(store, OTHER).capture_key == OTHER
    assert select_model(store, "dddddd").capture_key == OTHER
    store.begin_session(session(capture_key=CAPTURE))
    assert select_model(store, "demo").capture_key == CAPTURE
    store.begin_session(session(capture_key=OTHER))
    assert select_model(store, "demo").capture_key == OTHER
    for wrong in ("sdxl", "ddd", ""):
        with pytest.raises(UsageError) as caught:
            select_model(store, wrong)
        assert "demo" in caught.value.hint


def test_devices_by_key_and_part_of_the_model(store):
    arc = replace(RADEON, key="vulkan:intel-arc", model="Intel Arc A770")
    for device in (LLVMPIPE, RADEON, arc):
        store.begin_session(session(device))
    assert select_device(store, RADEON.key) == RADEON
    assert select_device(store, "rx 7600") == RADEON
    assert select_device(store, "ARC") == arc
    with pytest.raises(UsageError, match="more than one") as caught:
        select_device(store, "vulkan")
    assert RADEON.key in caught.value.hint
    with pytest.raises(UsageError, match="no device") as caught:
        select_device(store, "geforce")
    assert LLVMPIPE.key in caught.value.hint
