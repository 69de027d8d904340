"""Several devices at once: one process and one session for each, side by side, followed by this one.

Each device has its own search, worker, queue and session in the database, so a slow or dead one holds no other up. A
process that dies (TVM and drivers do crash) is started again and goes on where its last committed trial left it.
A browser's page is connected to this process, which measures for the session that is about it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...devices.device import Device
from ...devices.discovery.discovery import labels
from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.enums import Runtime
from ...support.errors import DeviceError
from ...support.serialization import to_plain
from ...support.signals import Interrupts
from ..ir import CaptureOptions
from ..session.events import Event, SessionEnded, TrialEnded, TuneSummary
from ..session.request import TuneRequest
from .device_source import Visitors
from .measure_proxy import Relay
from .session_process import SessionTask, event_from_json

_MODULE = "wgtune.tuner.fleet.session_process"
_MAX_RESTARTS = 3
"""Deaths of a session's process in a row, without a trial that ended in between, after which its device is given up."""

_OVERTIME_S = 900.0
"""How long a session may run beyond its minutes: its last trial and a reference may still be under way."""

_TICK_S = 0.25


class FleetListener(Protocol):
    """Watches sessions on several devices. Called in one thread: quick, and raising nothing."""

    def on(self, device: str, event: Event) -> None:
        """Takes note of an event of the session on ``device``, one of the names that `tune_fleet` was given."""

    def fault(self, device: str, what: str, *, again: bool) -> None:
        """The session's process ended, or was ended; with ``again`` another takes over."""

    def reachable(self, device: str, there: bool, why: str = "") -> None:
        """The device cannot be measured on now, and ``why``, or can be again."""

    def expect(self, device: str) -> None:
        """What is called ``device`` has not joined yet; "": nothing is waited for any more."""

    def invite(self, words: str) -> None:
        """How a device may join now."""

    def stopping(self, at_once: bool) -> None:
        """A Ctrl-C or SIGTERM arrived: the sessions end, or with ``at_once``, the second one, all processes do now."""

    def tick(self) -> None:
        """Time has passed."""


@dataclass(frozen=True)
class DeviceOutcome:
    """What came of one device: how its session ended, or why it has no end."""

    device: str
    summary: TuneSummary | None
    error: str = ""
    hint: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class FleetSummary:
    """What came of each device, in the order given; ``interrupted``: the user stopped it."""

    outcomes: tuple[DeviceOutcome, ...]
    interrupted: bool = False

    @property
    def failed(self) -> list[DeviceOutcome]:
        """Devices whose session did not come to an end."""
        return [outcome for outcome in self.outcomes if outcome.error]

    def to_json(self) -> list[dict[str, Any]]:
        """This summary as JSON values."""
        return [
            {
                "device": o.device,
                "summary": o.summary.to_json() if o.summary else None,
                "error": o.error,
                "restarts": o.restarts,
            }
            for o in self.outcomes
        ]


@dataclass(frozen=True)
class Fleet:
    """What the sessions have in common: the model as the user names it, how it is captured, the database's URL.

    ``request`` is the session's own; its device is replaced by each device's. ``scheduler`` is a Dask scheduler's
    address where the devices are agents', "" for devices of this machine.
    """

    model: str
    options: CaptureOptions
    request: TuneRequest
    database: str | None
    scheduler: str = ""

    def task(self, device: Device, minutes: float | None) -> SessionTask:
        """The session of one device, with so many minutes left."""
        request = replace(self.request, device=device, minutes=minutes)
        plain = to_plain(request, without=("capture",))
        relayed = self.visiting(device) and not self.scheduler
        return SessionTask(self.model, self.options, plain, self.database, self.scheduler, relayed)

    def visiting(self, device: Device) -> bool:
        """Whether the device comes and goes."""
        return bool(self.scheduler) or device.runtime is Runtime.BROWSER


def tune_fleet(
    fleet: Fleet,
    devices: Sequence[Device],
    listener: FleetListener,
    visitors: Visitors | None = None,
) -> FleetSummary:
    """Tunes on all of ``devices`` side by side, each as `wgtune.tuner.session.session.tune` does.

    The first SIGINT or SIGTERM ends all sessions cleanly, the second one ends all processes. Where this process is
    killed, the sessions end by themselves. ``visitors`` are asked now and then for the devices that are there: new
    ones get a session too, and the session of one that has left waits for it.

    Raises nothing for what happens to a device: the summary says so.
    """
    run = _Run(fleet, listener, visitors)
    for name, device in zip(labels(devices), devices, strict=True):
        run.add(name, device)
    with (
        Interrupts(on_request=run.stop, on_leave=lambda: run.stop(at_once=True)) as interrupts,
        run.ended_at_last(),
    ):
        while not run.finished:
            run.follow(_TICK_S)
            if not interrupts.requested:
                run.look_out()
    return FleetSummary(tuple(run.outcomes()), interrupts.requested)


@dataclass
class _Seat:
    """One device and its session's process."""

    name: str
    device: Device
    relay: Relay | None = None
    child: Child | None = None
    summary: TuneSummary | None = None
    error: str = ""
    hint: str = ""
    restarts: int = 0
    deaths_in_a_row: int = 0
    deadline: float | None = None
    reachable: bool = True
    ended: bool = False


@dataclass(frozen=True)
class _News:
    """What a session's process said, or how it ended; ``child`` tells it from an earlier one of the same device."""

    seat: _Seat
    child: Child
    message: dict[str, Any] = field(default_factory=dict)
    death: str = ""


class _Run:
    def __init__(self, fleet: Fleet, listener: FleetListener, visitors: Visitors | None) -> None:
        self._fleet = fleet
        self._listener = listener
        self._visitors = visitors
        self._expected = visitors.expected() if visitors is not None else ""
        self._missing: DeviceOutcome | None = None
        listener.expect(self._expected)
        self._started = time.monotonic()
        self._seats: list[_Seat] = []
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._stopping = False

    def add(self, name: str, device: Device) -> None:
        """Begins a session on one more device."""
        seat = _Seat(name, device)
        minutes = self._fleet.request.minutes
        if minutes is not None:
            seat.deadline = self._started + 60 * minutes + _OVERTIME_S
        if self._visitors is not None and self._fleet.visiting(device):
            worker = self._visitors.worker(device, self._fleet.request.timeouts)
            seat.relay = Relay(worker) if worker is not None else None
        self._seats.append(seat)
        self._start(seat)

    def look_out(self) -> None:
        """Begins a session on visitors that have none, and says who has left, has come back, or may come."""
        if self._visitors is None:
            return
        devices = self._visitors.there()
        for seat in self._seats:
            there = seat.device in devices
            if there is not seat.reachable and not seat.ended and self._fleet.visiting(seat.device):
                seat.reachable = there
                self._listener.reachable(seat.name, there, "" if there else self._visitors.absence(seat.device))
        known = [seat.device for seat in self._seats]
        for device in devices:
            if device not in known:
                name = device.key
                self._missing = None
                taken = sum(1 for seat in self._seats if seat.device.key == device.key)
                self.add(f"{name} [{device.index}]" if taken else name, device)
        self._expect(self._visitors)
        self._listener.invite(self._visitors.invitation())

    @property
    def finished(self) -> bool:
        """Whether no session runs any more, and none is still to begin."""
        return all(seat.ended for seat in self._seats) and (not self._expected or self._stopping)

    def follow(self, wait_s: float) -> None:
        """Takes in what the sessions tell within ``wait_s`` seconds."""
        with suppress(queue.Empty):
            news = self._news.get(timeout=wait_s)
            if news.child is news.seat.child:
                self._take(news)
        for seat in self._seats:
            if not seat.ended and seat.deadline is not None and time.monotonic() > seat.deadline and seat.child:
                self._give_up(seat, f"its session did not end within {_OVERTIME_S:g} s of its minutes")
        self._listener.tick()

    def stop(self, at_once: bool = False) -> None:
        """Asks all sessions to end; a second time, all processes."""
        self._stopping = True
        self._listener.stopping(at_once)
        for seat in self._seats:
            if seat.child is not None:
                with suppress(ChildDied):
                    seat.child.send({"stop": True})

    @contextmanager
    def ended_at_last(self) -> Iterator[None]:
        """Leaves no process behind, whatever happens inside."""
        try:
            yield
        finally:
            for seat in self._seats:
                if seat.child is not None:
                    seat.child.kill()

    def outcomes(self) -> Iterator[DeviceOutcome]:
        """What came of each device."""
        for seat in self._seats:
            yield DeviceOutcome(seat.name, seat.summary, seat.error, seat.hint, seat.restarts)
        if self._missing is not None:
            yield self._missing
        elif self._expected:
            yield DeviceOutcome(self._expected, None)

    def _expect(self, visitors: Visitors) -> None:
        """Whether somebody is still to come; who comes no more has failed."""
        expected = self._expected
        if not expected:
            return
        try:
            self._expected = visitors.expected()
        except DeviceError as error:
            self._missing = DeviceOutcome(expected, None, error.message, error.hint)
            self._expected = ""
            self._listener.fault(expected, error.message, again=False)
        if self._expected != expected:
            self._listener.expect(self._expected)

    def _start(self, seat: _Seat) -> None:
        minutes = self._fleet.request.minutes
        if minutes is not None:
            minutes = max(0.0, minutes - (time.monotonic() - self._started) / 60)
        child = seat.child = Child(_MODULE)
        with suppress(ChildDied):  # its end is in the news
            child.send({"task": to_plain(self._fleet.task(seat.device, minutes))})
        threading.Thread(target=self._listen, args=(seat, child), daemon=True).start()

    def _listen(self, seat: _Seat, child: Child) -> None:
        """Passes on what one process says, in a thread of its own."""
        while True:
            try:
                message = child.receive(time.monotonic() + 3600)
            except ChildTimeout:
                continue
            except ChildDied as died:
                self._news.put(_News(seat, child, death=str(died)))
                return
            self._news.put(_News(seat, child, message))

    def _take(self, news: _News) -> None:
        seat = news.seat
        if news.death:
            self._bury(seat, news.death)
        elif "ask" in news.message:
            if seat.relay is not None:
                seat.relay.serve(news.message, news.child.send)
        elif "refused" in news.message:
            seat.error, seat.hint = news.message["refused"], news.message["hint"]
            self._listener.fault(seat.name, seat.error, again=False)
        else:
            event = event_from_json(news.message)
            if isinstance(event, TrialEnded):
                seat.deaths_in_a_row = 0
            if isinstance(event, SessionEnded):
                seat.summary = event.summary
            self._listener.on(seat.name, event)

    def _bury(self, seat: _Seat, how: str) -> None:
        """A session's process has ended: as it should, or not."""
        seat.child = None
        if seat.summary is not None or seat.error or self._stopping:
            self._end(seat)
            return
        seat.deaths_in_a_row += 1
        again = seat.deaths_in_a_row <= _MAX_RESTARTS
        self._listener.fault(seat.name, f"its session's process {how}", again=again)
        if again:
            seat.restarts += 1
            self._start(seat)
        else:
            self._give_up(seat, f"its session's process {how}")

    def _give_up(self, seat: _Seat, why: str) -> None:
        seat.error, seat.hint = why, "the same command goes on where the last trial ended"
        child, seat.child = seat.child, None
        if child is not None:
            self._listener.fault(seat.name, why, again=False)
            child.kill()
        self._end(seat)

    def _end(self, seat: _Seat) -> None:
        seat.ended = True
        if self._visitors is not None and self._fleet.visiting(seat.device):
            self._visitors.release(seat.device)
