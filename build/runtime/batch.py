"""Many pictures from one bundle, drawn on several devices side by side: what `wgtune generate --prompts` does.

Each device has a process of its own and takes the next picture when it is free, so a slow one draws fewer and a dead
one holds nothing up: what it was drawing goes to the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...devices.device import Device
from ...devices.discovery.discovery import labels
from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.errors import DeviceError, UsageError, WgtuneError
from ..format.reader import Bundle
from .painter import GenerateOptions, ProgressCallback, ResolvedOptions, png_metadata, resolve_options
from .prompts import ImageRequest

_MODULE = "wgtune.build.runtime.batch_child"

STALL_S = 900.0
"""Longest silence of a device before it counts as hung: one step of a large model on a software adapter."""

_MAX_FAULTS = 2
"""Faults in a row after which a device draws no more."""

_MAX_ATTEMPTS = 3
"""Attempts at one picture before it is given up: a picture that takes every device down must not go round for ever."""


@dataclass(frozen=True)
class CompletedImage:
    """A picture that was drawn: by which device, in how many seconds."""

    request: ImageRequest
    device: str
    seconds: float


@dataclass(frozen=True)
class FailedImage:
    """A picture that was given up, and why."""

    request: ImageRequest
    reason: str


@dataclass
class BatchResult:
    """What became of the pictures. ``kept`` were there already; ``faults`` are what went wrong on which device."""

    folder: Path
    kept: list[ImageRequest] = field(default_factory=list)
    completed: list[CompletedImage] = field(default_factory=list)
    failed: list[FailedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    elapsed_s: float = 0.0


def missing_images(
    requests: Sequence[ImageRequest], bundle: Bundle, options: GenerateOptions, overwrite: bool
) -> list[ImageRequest]:
    """Those of ``requests`` whose file is not there yet, or is cut short; with ``overwrite`` all of them.

    Raises:
        UsageError: a file is there that was drawn otherwise, by its own metadata, and must not be taken for this one.
    """
    if overwrite:
        return list(requests)
    settings = resolve_options(bundle, options)
    return [request for request in requests if not _is_drawn(request, bundle, settings)]


def generate_batch(
    bundle: Path,
    requests: Sequence[ImageRequest],
    devices: Sequence[Device],
    options: GenerateOptions,
    *,
    overwrite: bool = False,
    stall_s: float = STALL_S,
    progress: ProgressCallback = lambda what, done: None,
    on_fault: Callable[[str, str], None] = lambda device, what: None,
) -> BatchResult:
    """Draw ``requests``, each on whichever of ``devices`` is free.

    Files that are there already are kept, so that the same call goes on where an earlier one stopped. ``on_fault`` is
    called with a device's name and what happened to it, as it happens. Ending early by an exception leaves whole
    pictures only.

    Raises:
        UsageError: the folder cannot be made, a value makes no sense, or a file was drawn otherwise.
        BundleError: the bundle is damaged, or lacks the scheduler or the number of steps.
        DeviceError: not one device could load the bundle.
    """
    started = time.monotonic()
    opened = Bundle.open(bundle)
    resolve_options(opened, options)  # what is wrong with the words is said before any process starts
    folder = requests[0].path.parent if requests else Path()
    _make_folder(folder)
    todo = missing_images(requests, opened, options, overwrite)
    result = BatchResult(folder, kept=[request for request in requests if request not in todo])
    if todo:
        run = _Batch(bundle, todo, options, stall_s, progress, on_fault)
        run.draw(devices, result)
    result.elapsed_s = time.monotonic() - started
    return result


@dataclass(frozen=True)
class _WorkerEvent:
    """What a device's thread tells the main one."""

    device: str
    done: CompletedImage | FailedImage | None = None
    share: float = 0.0
    what: str = ""
    fault: WgtuneError | None = None
    ended: bool = False


class _Batch:
    def __init__(
        self,
        bundle: Path,
        todo: Sequence[ImageRequest],
        options: GenerateOptions,
        stall_s: float,
        progress: ProgressCallback,
        on_fault: Callable[[str, str], None],
    ) -> None:
        self._hello = {"bundle": str(bundle.absolute()), "options": asdict(options)}
        self._queue = _RequestQueue(todo)
        self._total = len(todo)
        self._stall_s = stall_s
        self._progress = progress
        self._on_fault = on_fault
        self._events: queue.SimpleQueue[_WorkerEvent] = queue.SimpleQueue()

    def draw(self, devices: Sequence[Device], result: BatchResult) -> None:
        names = labels(devices)
        workers = [
            _DeviceWorker(name, device, self._hello, self._queue, self._stall_s, self._events.put)
            for name, device in zip(names, devices, strict=True)
        ]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            last_fault = self._follow(set(names), result)
        finally:
            self._queue.close()
            for worker in workers:
                worker.stop()
            for thread in threads:
                thread.join(15)
        left = self._queue.left
        if left and last_fault is not None and not result.completed:
            raise last_fault
        result.failed += [FailedImage(request, "no device was left to draw it") for request in left]

    def _follow(self, working: set[str], result: BatchResult) -> WgtuneError | None:
        """Takes in what the devices tell until none works any more; the last fault."""
        shares = dict.fromkeys(working, 0.0)
        last_fault = None
        while working:
            event = self._events.get()
            shares[event.device] = event.share
            if isinstance(event.done, CompletedImage):
                result.completed.append(event.done)
            elif isinstance(event.done, FailedImage):
                result.failed.append(event.done)
            if event.fault is not None:
                last_fault = event.fault
                result.faults.append((event.device, event.fault.message))
                self._on_fault(event.device, event.fault.message)
            if event.ended:
                working.discard(event.device)
            finished = len(result.completed) + len(result.failed)
            what = f"{finished} of {self._total}" + (f"; {event.device}: {event.what}" if event.what else "")
            self._progress(what, min(1.0, (finished + sum(shares.values())) / self._total))
        return last_fault


class _RequestQueue:
    """Pictures to draw, handed out one by one; those that a device fails at come back."""

    def __init__(self, requests: Sequence[ImageRequest]) -> None:
        self._waiting = deque(requests)
        self._out: set[ImageRequest] = set()
        self._failures: dict[ImageRequest, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def take(self) -> ImageRequest | None:
        """The next picture, waiting for one that may still come back; None when all are done with."""
        with self._changed:
            while not self._waiting and self._out and not self._closed:
                self._changed.wait()
            if self._closed or not self._waiting:
                return None
            request = self._waiting.popleft()
            self._out.add(request)
            return request

    def done(self, request: ImageRequest) -> None:
        """``drawing`` needs no other device."""
        with self._changed:
            self._out.discard(request)
            self._changed.notify_all()

    def give_back(self, request: ImageRequest, *, failed: bool) -> bool:
        """Takes ``drawing`` back for another attempt; False where it has had enough that ``failed``."""
        with self._changed:
            self._out.discard(request)
            self._failures[request] = self._failures.get(request, 0) + failed
            again = self._failures[request] < _MAX_ATTEMPTS
            if again:
                self._waiting.appendleft(request)
            self._changed.notify_all()
            return again

    def close(self) -> None:
        """Hands out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def left(self) -> list[ImageRequest]:
        """What nobody has drawn."""
        with self._changed:
            return sorted([*self._waiting, *self._out], key=lambda request: request.line)


class _DeviceWorker:
    """One device: its process, its thread, and its share of the pictures."""

    def __init__(
        self,
        name: str,
        device: Device,
        hello: dict[str, Any],
        requests: _RequestQueue,
        stall_s: float,
        emit: Callable[[_WorkerEvent], None],
    ) -> None:
        self._name = name
        self._hello = {**hello, "device": device.to_json()}
        self._requests = requests
        self._stall_s = stall_s
        self._emit = emit
        self._child: Child | None = None
        self._stopped = False

    def run(self) -> None:
        """Draws until nothing is left, or the device has failed too often."""
        faults = 0
        try:
            while faults < _MAX_FAULTS and (request := self._requests.take()) is not None:
                began = False
                try:
                    child = self._child or self._start()
                    began = True
                    self._attempt(child, request)
                    faults = 0
                except (ChildDied, ChildTimeout, DeviceError) as error:
                    self._end_child()
                    if self._stopped:
                        return
                    faults += 1
                    fault = self._fault(error)
                    again = self._requests.give_back(request, failed=began)
                    self._emit(
                        _WorkerEvent(
                            self._name, done=None if again else FailedImage(request, fault.message), fault=fault
                        )
                    )
        finally:
            self._end_child()
            self._emit(_WorkerEvent(self._name, ended=True))

    def stop(self) -> None:
        """Ends the process, and with it whatever `work` waits for; from another thread."""
        self._stopped = True
        self._end_child()

    def _attempt(self, child: Child, request: ImageRequest) -> None:
        started = time.monotonic()
        child.send({"prompt": request.prompt, "seed": request.seed, "path": str(request.path.absolute())})
        while "step" in (message := self._receive(child)):
            step, calls = message["step"], message["of"]
            what = f"line {request.line}, step {step} of {calls}"
            self._emit(_WorkerEvent(self._name, share=step / (calls + 1), what=what))
        self._requests.done(request)
        if "failed" in message:
            self._emit(_WorkerEvent(self._name, done=FailedImage(request, message["failed"])))
        else:
            self._emit(_WorkerEvent(self._name, done=CompletedImage(request, self._name, time.monotonic() - started)))

    def _start(self) -> Child:
        self._child = child = Child(_MODULE)
        if self._stopped:
            raise ChildTimeout
        child.send(self._hello)
        while "ready" not in (message := self._receive(child)):
            self._emit(_WorkerEvent(self._name, what=f"loading, {message['done']:.0%}"))
        return child

    def _receive(self, child: Child) -> dict[str, Any]:
        """The next message; raises DeviceError where the child can draw nothing."""
        message = child.receive(time.monotonic() + self._stall_s)
        if "refused" in message:
            raise DeviceError(message["refused"], message["hint"])
        return message

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def _fault(self, error: Exception) -> DeviceError:
        if isinstance(error, DeviceError):
            return error
        if isinstance(error, ChildTimeout):
            return DeviceError(f"{self._name} said nothing for {self._stall_s:g} s", "leave it out with --device")
        return DeviceError(f"{self._name}: the drawing process {error}", "leave it out with --device, or try again")


def _is_drawn(request: ImageRequest, bundle: Bundle, settings: ResolvedOptions) -> bool:
    """Whether the picture is there, whole; raises UsageError where another one is there in its place."""
    from PIL import Image

    try:
        with Image.open(request.path) as png:
            png.load()
            found = {str(key): str(value) for key, value in png.info.items()}
            size = png.size
    except FileNotFoundError:
        return False
    except (OSError, SyntaxError, ValueError):  # cut short by a full disk, or no picture at all
        if request.path.stat().st_size == 0 or request.path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n":
            return False
        raise UsageError(f"{request.path} is no picture of ours", "choose another folder, or add --overwrite") from None
    wanted = png_metadata(bundle, settings, request.prompt, request.seed)
    other = [name for name, value in wanted.items() if found.get(name) != value]
    image = bundle.manifest.image
    if size != (image.width, image.height):
        other.append("size")
    if other:
        raise UsageError(
            f"{request.path} was drawn with another {' and '.join(other)} than line {request.line} asks for",
            "choose another folder, or draw it anew with --overwrite",
        )
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}: {error.strerror or error}", "choose another with -o"
        ) from None
