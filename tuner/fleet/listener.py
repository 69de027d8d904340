"""What a fleet reports: the listener that it notifies while it runs, and the summary that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..session.events import Event, TuneSummary


class FleetListener(Protocol):
    """Observer of sessions on several devices.

    Called from one thread. Its methods must return quickly and raise nothing. ``device`` is the device's name within
    the fleet.
    """

    def on(self, device: str, event: Event) -> None:
        """Take note of an event of the session on ``device``."""

    def session_failed(self, device: str, reason: str, *, restarting: bool) -> None:
        """Take note that the session's process ended early; with ``restarting``, another one replaces it."""

    def availability_changed(self, device: str, available: bool, reason: str = "") -> None:
        """Take note that the device can measure again, or cannot now, for ``reason``."""

    def awaiting_device(self, name: str) -> None:
        """Take note of the name of a device that must still join; "" where none must any more."""

    def join_instructions_changed(self, text: str) -> None:
        """Take note of how another device can join."""

    def stopping(self, at_once: bool) -> None:
        """Take note of Ctrl-C or SIGTERM: sessions end cleanly, or with ``at_once`` (the second one) immediately."""

    def tick(self) -> None:
        """Take note that time has passed. Called several times a second."""


@dataclass(frozen=True)
class DeviceOutcome:
    """How the session on one device ended.

    Attributes:
        device: The device's name within the fleet.
        summary: The session's summary; None where the session did not reach its end.
        error: Why the session failed; "" where it did not fail.
        hint: What the user can do about ``error``.
        restarts: How many times the session's process was started again.
    """

    device: str
    summary: TuneSummary | None
    error: str = ""
    hint: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class FleetSummary:
    """Outcome of each device, in the order in which they joined; ``interrupted`` says whether the user stopped it."""

    outcomes: tuple[DeviceOutcome, ...]
    interrupted: bool = False

    @property
    def failed(self) -> list[DeviceOutcome]:
        """Outcomes of the devices whose session failed."""
        return [outcome for outcome in self.outcomes if outcome.error]

    def to_json(self) -> list[dict[str, Any]]:
        """Return this summary as JSON values."""
        return [
            {
                "device": o.device,
                "summary": o.summary.to_json() if o.summary else None,
                "error": o.error,
                "restarts": o.restarts,
            }
            for o in self.outcomes
        ]
