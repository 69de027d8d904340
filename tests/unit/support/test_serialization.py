"""What a session's processes tell each other comes out as it went in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from session_script import SCRIPT, summary

from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.support.enums import Runtime
from wgtune.support.serialization import from_plain, plain, restored_fields, to_plain
from wgtune.tuner.fleet.session_protocol import event_from_json, event_to_json
from wgtune.tuner.session.events import Event, KernelExhausted, KernelSkipped, SessionEnded, Stopping
from wgtune.tuner.session.request import TuneRequest

EVENTS: list[Any] = [
    *(event for _, event in SCRIPT),
    KernelExhausted("a", None),
    KernelSkipped("b", "softmax", "no reference"),
    Stopping(at_once=True),
    SessionEnded(summary()),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_travel(event: Event) -> None:
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_every_kind_of_event_is_known_by_its_name() -> None:
    names = [kind.__name__ for kind in get_args(Event)]
    assert len(set(names)) == len(names)


def test_a_request_travels_but_for_its_capture() -> None:
    device = Device("vulkan:x", "vulkan", "v", "", "x", "d", "cpu", True, {"a": 1}, ("f16",), Runtime.WGPU, 0)
    tier = replace(TIERS["default"], features=frozenset({"shader-f16", "subgroups"}))
    request = TuneRequest(None, device, tier, stages=["unet"], kernels=None, minutes=1.5, trials=None)  # type: ignore[arg-type]
    fields = restored_fields(TuneRequest, json.loads(json.dumps(to_plain(request, without=("capture",)))))
    assert TuneRequest(capture=None, **fields) == request  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [{"kernel_id": 3}, {"name": None}, {"kernel_id": ["b"]}],
)
def test_a_message_with_a_value_of_another_type_is_refused(damage: dict[str, Any]) -> None:
    message = event_to_json(KernelSkipped("b", "softmax", "no reference"))
    with pytest.raises(ValueError):
        event_from_json({**message, "data": {**message["data"], **damage}})
    del message["data"]["name"]
    with pytest.raises((ValueError, TypeError)):
        event_from_json(message)


def test_numbers_that_json_lacks_travel_but_are_not_printed() -> None:
    values = {"error": float("inf"), "missing": float("nan"), "at": datetime(2026, 1, 2, tzinfo=timezone.utc)}
    assert to_plain(values)["error"] == float("inf")
    assert plain(values) == {"error": None, "missing": None, "at": "2026-01-02T00:00:00+00:00"}
    assert from_plain(dict[str, float], json.loads(json.dumps({"error": float("inf")}))) == {"error": float("inf")}


def test_what_has_no_json_form_is_refused() -> None:
    assert from_plain(Path, to_plain(Path("/a"))) == Path("/a")
    with pytest.raises(TypeError, match="object"):
        to_plain(object())
