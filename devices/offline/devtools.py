"""A headless Chromium, spoken to through a pipe in Chrome's DevTools protocol.

Messages are JSON, each ended by a zero byte; Chromium reads descriptor 3 and writes descriptor 4
(https://chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...support.errors import DeviceError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
"""Programs that are looked for; ``WGTUNE_CHROMIUM`` names another one."""

_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
_LAUNCH = (
    "import os,sys;r,w=int(sys.argv[1]),int(sys.argv[2]);os.dup2(r,3);os.dup2(w,4);os.execv(sys.argv[3],sys.argv[3:])"
)
"""Puts two descriptors where Chromium expects them."""

_BLOCK = 1 << 20
_LOWEST = 10
"""The least number of a descriptor that is handed over, so that neither overwrites the other."""


class BrowserGone(Exception):
    """The browser ended, or did not answer in time."""


class PageError(Exception):
    """A script threw an exception in the page."""


def find_chromium() -> str:
    """Return the path of a Chromium; raises DeviceError, in one sentence, where there is none."""
    given = os.environ.get("WGTUNE_CHROMIUM")
    for name in (given,) if given else NAMES:
        if path := shutil.which(name):
            return path
    raise DeviceError(
        f"compiling WGSL offline needs Chromium, whose compiler it uses; there is no {given or ', '.join(NAMES)}",
        "apt-get install chromium, or name yours: WGTUNE_CHROMIUM=/path/to/chrome",
    )


def chromium_version(path: str) -> str:
    """Return a browser's name and version, as in ``Chromium 156.0.8078.108``. Raises DeviceError where it fails."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{path} does not tell its version: {error}") from None
    for line in done.stdout.splitlines():
        words = line.split()
        for at, word in enumerate(words):
            if at and word[0].isdigit() and "." in word:
                return " ".join(words[: at + 1])
    raise DeviceError(f"{path} does not tell its version", "name another with WGTUNE_CHROMIUM")


class Chromium:
    """One running browser with one page, in a profile that is deleted with it."""

    def __init__(self, path: str, flags: Sequence[str], timeout_s: float = 60) -> None:
        """Start it and open an empty page. Raises BrowserGone where it does not come up."""
        self._profile = tempfile.TemporaryDirectory(prefix="wgtune-chromium-", ignore_cleanup_errors=True)
        page = Path(self._profile.name, "page.html")
        # A file of ours: WebGPU exists in secure contexts only, and about:blank is none.
        page.write_text("<!doctype html><title>wgtune</title>")
        self._errors = Path(self._profile.name, "errors.txt")
        # Chromium's sandbox refuses to run for root.
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        command = [path, *_FLAGS, *root, *flags, f"--user-data-dir={self._profile.name}/profile", "about:blank"]
        self._process, self._reading, self._writing = _start(command, self._errors)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reading, selectors.EVENT_READ)
        self._buffer = bytearray()
        self._last_id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """Events of the page that have arrived and that nobody has taken yet."""
        try:
            deadline = time.monotonic() + timeout_s
            target = self.call("Target.createTarget", {"url": "about:blank"}, deadline)["targetId"]
            attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, deadline)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable", {}, deadline)
            self.call("Page.navigate", {"url": page.as_uri()}, deadline)
            self.wait_for(lambda event: event["method"] == "Page.loadEventFired", deadline)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def evaluate(self, script: str, deadline: float) -> Any:
        """Return the value of a JavaScript expression in the page; promises are awaited.

        Raises PageError for an exception, BrowserGone after ``deadline`` (of time.monotonic).
        """
        parameters = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", parameters, deadline)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details.get("text", "an exception"))
        return answer["result"].get("value")

    def call(self, method: str, parameters: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Return a DevTools method's result. Raises PageError where it fails, BrowserGone after ``deadline``."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        try:
            self._writing.write(json.dumps(message).encode() + b"\0")
            self._writing.flush()
        except OSError:
            raise self._gone() from None
        while True:
            received = self._receive(deadline)
            if received.get("id") != self._last_id:
                continue
            if "error" in received:
                raise PageError(f"{method}: {received['error'].get('message', 'failed')}")
            result: dict[str, Any] = received["result"]
            return result

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], deadline: float) -> dict[str, Any]:
        """Return the first event that is ``wanted``, and forget those before it; BrowserGone after ``deadline``."""
        while True:
            while self.events:
                if wanted(event := self.events.pop(0)):
                    return event
            self._receive(deadline)

    def kill(self) -> None:
        """End the browser at once, from any thread."""
        # The whole group: a browser is several processes.
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the browser and delete its profile."""
        with contextlib.suppress(OSError):
            self._writing.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._selector.close()
        self._reading.close()
        self._profile.cleanup()

    def _receive(self, deadline: float) -> dict[str, Any]:
        """Return the next message; events are kept as well."""
        while (end := self._buffer.find(b"\0")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise BrowserGone("Chromium did not answer in time")
            block = os.read(self._reading.fileno(), _BLOCK)
            if not block:
                raise self._gone()
            self._buffer += block
        message: dict[str, Any] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        if "method" in message:
            self.events.append(message)
        return message

    def _gone(self) -> BrowserGone:
        words = ""
        with contextlib.suppress(OSError):
            words = self._errors.read_text(errors="replace").strip()
        return BrowserGone("Chromium ended" + (f": {words.splitlines()[-1][:300]}" if words else ""))


def _start(command: list[str], errors: Path) -> tuple[subprocess.Popen[bytes], Any, Any]:
    """Start a browser in a process group of its own; return it with the ends of its pipes."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    handed = []
    try:
        import fcntl

        handed = [fcntl.fcntl(one, fcntl.F_DUPFD, _LOWEST) for one in (theirs_in, theirs_out)]
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, *map(str, handed), *command],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
    finally:
        for one in (theirs_in, theirs_out, *handed):
            os.close(one)
    return process, os.fdopen(ours_in, "rb", buffering=0), os.fdopen(ours_out, "wb")
