"""The fleet's state machine, event by event: no thread, no process, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.devices.device import Device
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.fleet.fleet_events import (
    DeviceAwaited,
    DeviceJoined,
    DeviceLeft,
    DeviceNeverJoined,
    JoinInstructions,
    KillProcess,
    NotifyAvailability,
    NotifyAwaited,
    NotifyEvent,
    NotifyFailure,
    NotifyJoinInstructions,
    NotifyStopping,
    NotifyTick,
    ProcessExited,
    ReleaseDevice,
    ServeMeasurement,
    SessionMessage,
    StartProcess,
    StopRequested,
    StopSession,
    TimePassed,
)
from wgtune.tuner.fleet.fleet_state import MAX_RESTARTS, OVERTIME_S, FleetState
from wgtune.tuner.fleet.listener import DeviceOutcome
from wgtune.tuner.fleet.session_protocol import MeasureRequest, Refusal
from wgtune.tuner.session.events import KernelExhausted, SessionEnded, TrialEnded, TuneSummary

GPU = Device("vulkan:a", "vulkan", "vendor", "architecture", "a", "1.0", "discrete", False, {}, (), Runtime.WGPU, 0)
OTHER = replace(GPU, key="vulkan:b")
BROWSER = replace(GPU, key="browser:c", runtime=Runtime.BROWSER)

TRIAL = TrialEnded("k", TrialKind.SEARCH, TrialState.OK, 1e-3, 2e-3, 1e-3, 5, "")
SUMMARY = TuneSummary(7, SessionOutcome.COMPLETED, 1, 1, 1, 2.0, 1.0)
ENDED = SessionEnded(SUMMARY)
CRASH = "was ended by SIGSEGV (signal 11)"
DEATH = f"its session's process {CRASH}"
HINT = "the same command goes on where the last trial ended"


def begun(minutes: float | None = None, device: Device = GPU, from_source: bool = False) -> FleetState:
    """A fleet that began at 100 s with one device, whose session runs in process 1."""
    state = FleetState(100.0, minutes)
    assert state.handle(DeviceJoined(100.0, device, device.key, from_source)) == [
        StartProcess(1, device.key, device, minutes)
    ]
    return state


def test_a_session_runs_to_its_end() -> None:
    state = begun()
    event = KernelExhausted("k", 3)
    assert state.handle(SessionMessage(1, event)) == [NotifyEvent("vulkan:a", event)]
    assert state.handle(SessionMessage(1, ENDED)) == [NotifyEvent("vulkan:a", ENDED)]
    assert not state.finished, "its process still runs"
    assert state.handle(ProcessExited(160.0, 1, "ended with exit status 0")) == []
    assert state.finished and state.outcomes() == [DeviceOutcome("vulkan:a", SUMMARY)]


def test_a_fleet_without_devices_is_finished_unless_one_is_awaited() -> None:
    state = FleetState(0.0, None)
    assert state.finished and state.outcomes() == []
    state.handle(DeviceAwaited("browser"))
    assert not state.finished and state.outcomes() == [DeviceOutcome("browser", None)]


def test_devices_do_not_disturb_each_other() -> None:
    state = begun()
    assert state.handle(DeviceJoined(101.0, OTHER, "vulkan:b", False)) == [StartProcess(2, "vulkan:b", OTHER, None)]
    assert state.handle(ProcessExited(110.0, 1, CRASH))[-1] == StartProcess(3, "vulkan:a", GPU, None)
    state.handle(SessionMessage(2, ENDED))
    state.handle(ProcessExited(120.0, 2, "ended with exit status 0"))
    assert not state.finished
    state.handle(SessionMessage(3, ENDED))
    state.handle(ProcessExited(130.0, 3, "ended with exit status 0"))
    assert state.finished
    assert state.outcomes() == [DeviceOutcome("vulkan:a", SUMMARY, restarts=1), DeviceOutcome("vulkan:b", SUMMARY)]


def test_a_process_that_died_is_started_again_with_the_minutes_that_are_left() -> None:
    state = begun(minutes=10.0)
    assert state.handle(ProcessExited(100.0 + 4 * 60, 1, CRASH)) == [
        NotifyFailure("vulkan:a", DEATH, restarting=True),
        StartProcess(2, "vulkan:a", GPU, 6.0),
    ]
    assert state.handle(ProcessExited(100.0 + 11 * 60, 2, CRASH))[1] == StartProcess(3, "vulkan:a", GPU, 0.0)


def test_a_session_whose_processes_die_in_a_row_is_given_up() -> None:
    state = begun(device=BROWSER, from_source=True)
    for process in range(1, MAX_RESTARTS + 1):
        assert state.handle(ProcessExited(100.0, process, CRASH)) == [
            NotifyFailure("browser:c", DEATH, restarting=True),
            StartProcess(process + 1, "browser:c", BROWSER, None),
        ]
    assert not state.finished
    assert state.handle(ProcessExited(100.0, MAX_RESTARTS + 1, CRASH)) == [
        NotifyFailure("browser:c", DEATH, restarting=False),
        ReleaseDevice(BROWSER),
    ]
    assert state.finished
    assert state.outcomes() == [DeviceOutcome("browser:c", None, DEATH, HINT, MAX_RESTARTS)]


def test_only_a_trial_resets_the_count_of_deaths() -> None:
    state = begun()
    for process in range(1, MAX_RESTARTS + 1):
        state.handle(SessionMessage(process, KernelExhausted("k", 3)))
        state.handle(ProcessExited(100.0, process, CRASH))
    state.handle(SessionMessage(MAX_RESTARTS + 1, TRIAL))
    for process in range(MAX_RESTARTS + 1, 2 * MAX_RESTARTS + 1):
        assert state.handle(ProcessExited(100.0, process, CRASH))[-1] == StartProcess(
            process + 1, "vulkan:a", GPU, None
        )
    last = 2 * MAX_RESTARTS + 1
    assert state.handle(ProcessExited(100.0, last, CRASH)) == [NotifyFailure("vulkan:a", DEATH, restarting=False)]
    assert state.outcomes()[0].restarts == 2 * MAX_RESTARTS


def test_a_session_that_refuses_is_not_started_again() -> None:
    state = begun(device=BROWSER, from_source=True)
    assert state.handle(SessionMessage(1, Refusal("the database is a folder", "name a file"))) == [
        NotifyFailure("browser:c", "the database is a folder", restarting=False)
    ]
    assert not state.finished
    assert state.handle(ProcessExited(101.0, 1, "ended with exit status 1")) == [ReleaseDevice(BROWSER)]
    assert state.outcomes() == [DeviceOutcome("browser:c", None, "the database is a folder", "name a file")]


def test_a_session_that_exceeds_its_minutes_is_killed_and_given_up() -> None:
    state = begun(minutes=1.0)
    state.handle(DeviceJoined(130.0, BROWSER))
    limit = 100.0 + 60.0 + OVERTIME_S
    assert state.handle(TimePassed(limit)) == [NotifyTick()]
    reason = "its session did not end within 900 s of its minutes"
    assert state.handle(TimePassed(limit + 0.1)) == [
        NotifyFailure("vulkan:a", reason, restarting=False),
        KillProcess(1),
        NotifyFailure("browser:c", reason, restarting=False),
        KillProcess(2),
        ReleaseDevice(BROWSER),
        NotifyTick(),
    ]
    assert state.finished
    assert state.handle(TimePassed(limit + 1)) == [NotifyTick()], "once"
    assert state.handle(ProcessExited(limit + 1, 1, "was ended by SIGKILL (signal 9)")) == []
    assert state.outcomes()[0] == DeviceOutcome("vulkan:a", None, reason, HINT)


def test_without_minutes_there_is_no_deadline() -> None:
    assert begun().handle(TimePassed(1e9)) == [NotifyTick()]


def test_messages_of_a_process_that_was_replaced_are_ignored() -> None:
    state = begun()
    state.handle(ProcessExited(110.0, 1, CRASH))
    for late in (TRIAL, ENDED, Refusal("no", ""), MeasureRequest({"ask": 1, "calibrate": True})):
        assert state.handle(SessionMessage(1, late)) == []
    assert state.handle(ProcessExited(111.0, 1, CRASH)) == []
    assert state.outcomes() == [DeviceOutcome("vulkan:a", None, restarts=1)] and not state.finished


def test_a_request_to_measure_is_served_for_its_own_device() -> None:
    state = begun()
    state.handle(DeviceJoined(101.0, BROWSER))
    request = MeasureRequest({"ask": 1, "calibrate": True})
    assert state.handle(SessionMessage(2, request)) == [ServeMeasurement(2, "browser:c", request)]


def test_stopping_asks_every_session_that_runs_and_starts_none() -> None:
    state = begun()
    state.handle(DeviceJoined(101.0, OTHER, "vulkan:b", False))
    state.handle(SessionMessage(1, ENDED))
    state.handle(ProcessExited(102.0, 1, "ended with exit status 0"))
    assert state.handle(StopRequested()) == [NotifyStopping(False), StopSession(2)]
    assert state.handle(DeviceJoined(103.0, BROWSER)) == []
    assert state.handle(ProcessExited(104.0, 2, "ended with exit status 130")) == []
    assert state.finished
    assert state.outcomes() == [DeviceOutcome("vulkan:a", SUMMARY), DeviceOutcome("vulkan:b", None)]


def test_a_second_stop_is_passed_on_as_well() -> None:
    state = begun()
    state.handle(StopRequested())
    assert state.handle(StopRequested(at_once=True)) == [NotifyStopping(True), StopSession(1)]


def test_a_stopped_fleet_waits_for_nobody() -> None:
    state = FleetState(0.0, None)
    state.handle(DeviceAwaited("browser"))
    assert state.handle(StopRequested()) == [NotifyStopping(False)]
    assert state.finished and state.outcomes() == [DeviceOutcome("browser", None)]


def test_a_device_that_leaves_and_comes_back_keeps_its_session() -> None:
    state = begun(device=BROWSER, from_source=True)
    left, back = DeviceLeft(BROWSER, "the page was closed"), DeviceJoined(120.0, BROWSER)
    assert state.handle(back) == [], "it was there already"
    assert state.handle(left) == [NotifyAvailability("browser:c", False, "the page was closed")]
    assert state.handle(left) == [], "it is said once"
    assert state.handle(back) == [NotifyAvailability("browser:c", True)]
    assert not state.finished


def test_a_device_whose_session_has_ended_may_leave_and_gets_no_other_one() -> None:
    state = begun(device=BROWSER, from_source=True)
    state.handle(SessionMessage(1, ENDED))
    assert state.handle(ProcessExited(120.0, 1, "ended with exit status 0")) == [ReleaseDevice(BROWSER)]
    assert state.handle(DeviceLeft(BROWSER, "")) == []
    assert state.handle(DeviceJoined(130.0, BROWSER)) == []
    assert state.finished


def test_joining_devices_get_names_of_their_own() -> None:
    state = begun()
    second, third = replace(BROWSER, index=1), replace(BROWSER, index=2)
    names = [state.handle(DeviceJoined(110.0, device)) for device in (BROWSER, second, third)]
    assert names == [
        [StartProcess(2, "browser:c", BROWSER, None)],
        [StartProcess(3, "browser:c [1]", second, None)],
        [StartProcess(4, "browser:c [2]", third, None)],
    ]


def test_a_device_that_joins_late_gets_the_minutes_that_are_left() -> None:
    state = begun(minutes=10.0)
    assert state.handle(DeviceJoined(100.0 + 150, BROWSER)) == [StartProcess(2, "browser:c", BROWSER, 7.5)]


def test_an_awaited_device_joins() -> None:
    state = begun()
    assert state.handle(DeviceAwaited("browser")) == [NotifyAwaited("browser")]
    assert state.handle(DeviceAwaited("browser")) == [], "it is said once"
    state.handle(SessionMessage(1, ENDED))
    state.handle(ProcessExited(120.0, 1, "ended with exit status 0"))
    assert not state.finished
    state.handle(DeviceJoined(121.0, BROWSER))
    assert state.handle(DeviceAwaited("")) == [NotifyAwaited("")]
    assert [outcome.device for outcome in state.outcomes()] == ["vulkan:a", "browser:c"]


def test_an_awaited_device_that_does_not_join_in_time_has_failed() -> None:
    state = begun()
    state.handle(DeviceAwaited("browser"))
    assert state.handle(DeviceNeverJoined("no browser joined in time", "open the address")) == [
        NotifyFailure("browser", "no browser joined in time", restarting=False),
        NotifyAwaited(""),
    ]
    failed = DeviceOutcome("browser", None, "no browser joined in time", "open the address")
    assert state.outcomes()[-1] == failed and state.awaited == ""
    state.handle(DeviceJoined(121.0, BROWSER))
    assert failed not in state.outcomes(), "a browser joined after all"


@pytest.mark.parametrize("text", ["open http://127.0.0.1:1/", "open http://127.0.0.1:1/ in another browser"])
def test_join_instructions_are_passed_on_when_they_change(text: str) -> None:
    state = begun()
    assert state.handle(JoinInstructions("")) == []
    assert state.handle(JoinInstructions(text)) == [NotifyJoinInstructions(text)]
    assert state.handle(JoinInstructions(text)) == []
    assert state.handle(JoinInstructions("")) == [NotifyJoinInstructions("")]
