"""Draws many images from one bundle on several devices in parallel, for `wgtune generate --prompts`.

Each device has a process of its own and takes the next request when it is free, so a slow device draws fewer images.
The request of a process that died goes to the other devices.
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
"""Seconds without a message after which a device counts as hung. One step of a large model may take minutes, on a
software adapter or a small integrated GPU; nothing but the wait depends on it."""

_MAX_FAULTS = 2
"""Consecutive faults after which a device is no longer used."""

_MAX_ATTEMPTS = 3
"""Attempts at one image before it is given up, so that one that crashes every device does not stop the batch."""


@dataclass(frozen=True)
class CompletedImage:
    """An image that was drawn, the device's name and the seconds it took."""

    request: ImageRequest
    device: str
    seconds: float


@dataclass(frozen=True)
class FailedImage:
    """An image that was given up, and why."""

    request: ImageRequest
    reason: str


@dataclass
class BatchResult:
    """The outcome of a batch. ``kept`` existed already; ``faults`` are (device name, message) pairs."""

    folder: Path
    kept: list[ImageRequest] = field(default_factory=list)
    completed: list[CompletedImage] = field(default_factory=list)
    failed: list[FailedImage] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    elapsed_s: float = 0.0


def missing_images(
    requests: Sequence[ImageRequest], bundle: Bundle, options: GenerateOptions, overwrite: bool
) -> list[ImageRequest]:
    """Return the requests whose file is missing or cut short; with ``overwrite`` all of them.

    Raises:
        UsageError: a file's metadata says that it was drawn with other options.
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
    """Draw each request on the next free device.

    Existing files are kept, so that the same call continues where an earlier one stopped. A call that ends by an
    exception leaves complete files only.

    Args:
        bundle: the bundle's folder.
        requests: the images to draw.
        devices: the devices to use.
        options: options of all images.
        overwrite: draw existing files again.
        stall_s: seconds without a message after which a device counts as hung.
        progress: receives the current step and the share of the whole that is done.
        on_fault: receives the device's name and message of each fault when it happens.

    Raises:
        UsageError: the folder cannot be made, an option has an impossible value, or a file has other options.
        BundleError: the bundle is damaged, or lacks the scheduler or the number of steps.
        DeviceError: no device could load the bundle.
    """
    started = time.monotonic()
    opened = Bundle.open(bundle)
    resolve_options(opened, options)  # wrong options are reported before any process starts
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
    """A message from a device's thread to the main one."""

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
        """Process the devices' events until all have ended; return the last fault."""
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
    """Requests that wait for a device; one whose device failed is put back."""

    def __init__(self, requests: Sequence[ImageRequest]) -> None:
        self._waiting = deque(requests)
        self._out: set[ImageRequest] = set()
        self._failures: dict[ImageRequest, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def take(self) -> ImageRequest | None:
        """Return the next request, waiting while one may still be put back; None when all are finished."""
        with self._changed:
            while not self._waiting and self._out and not self._closed:
                self._changed.wait()
            if self._closed or not self._waiting:
                return None
            request = self._waiting.popleft()
            self._out.add(request)
            return request

    def done(self, request: ImageRequest) -> None:
        """Mark ``request`` as finished."""
        with self._changed:
            self._out.discard(request)
            self._changed.notify_all()

    def give_back(self, request: ImageRequest, *, failed: bool) -> bool:
        """Put ``request`` back for another attempt; return False where it has had its last."""
        with self._changed:
            self._out.discard(request)
            self._failures[request] = self._failures.get(request, 0) + failed
            again = self._failures[request] < _MAX_ATTEMPTS
            if again:
                self._waiting.appendleft(request)
            self._changed.notify_all()
            return again

    def close(self) -> None:
        """Return None from every further `take`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def left(self) -> list[ImageRequest]:
        """Return the requests that are not finished, by line."""
        with self._changed:
            return sorted([*self._waiting, *self._out], key=lambda request: request.line)


class _DeviceWorker:
    """One device's thread and child process, which take requests from the queue."""

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
        """Draw until no request is left, or the device has failed too often."""
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
        """End the process, and with it what `run` waits for; called by another thread."""
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
        """Return the next message; raise DeviceError where the child cannot draw."""
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
    """Return whether the image exists and is complete; raise UsageError where another one has its name."""
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
