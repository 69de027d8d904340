"""The parent's side of a child process that answers requests in JSON lines, and may crash, hang or print anything."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import IO, Any

from .json_lines import decode_line, encode_line

_LONGEST_LINE = 4 << 20
"""Limit in bytes of one answer: far more than any measurement takes."""
_LONGEST_ERROR_LINE = 4 << 10
"""Limit in bytes of one line of standard error."""


class ChildDied(Exception):
    """The child exited, was killed, or closed its pipes.

    Attributes:
        how: How it ended, as `describe_exit` says.
        words: The last lines that it wrote to standard error.
    """

    def __init__(self, how: str, words: str) -> None:
        super().__init__(f"{how}; its last words:\n{words}" if words else how)
        self.how = how
        self.words = words


class ChildTimeout(Exception):
    """The child did not answer before the deadline."""

    def __init__(self) -> None:
        super().__init__("no answer in time")


class Child:
    """One child process, and the threads that read its pipes.

    Each child has pipes and a queue of its own, so that the answers of two children cannot be mixed up.
    """

    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        """Start ``python -m module arguments``."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # NumPy's BLAS, which no child uses, starts a thread per core: half of the time that importing NumPy takes.
            # `-m` puts the working directory first on the path, where a user's file could shadow a module of ours.
            env={"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONSAFEPATH": "1"},
            # Ctrl-C goes to the terminal's whole process group. The parent decides what the child does about it.
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=20)
        self._readers = [
            threading.Thread(target=self._read_answers, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        """Write one request; raises ChildDied where the child does not read it, or was ended."""
        stdin = self._process.stdin
        assert stdin is not None
        self._last_words.clear()
        line = encode_line(message)
        try:
            stdin.write(line)
            stdin.flush()
        except (OSError, ValueError):  # ValueError: `kill` has closed the pipe
            raise self._death() from None

    def receive(self, deadline: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ChildTimeout: None arrives before ``deadline`` (of time.monotonic).
            ChildDied: The child has ended and no answer is left.
        """
        try:
            message = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ChildTimeout() from None
        if message is None:
            raise self._death()
        return message

    def stop(self, grace_s: float = 2.0) -> None:
        """Close the child's input, which asks it to end, and kill it where it still runs after ``grace_s`` seconds."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """Kill the child at once, and close its pipes."""
        if self.alive:
            self._process.kill()
        # A process that is stuck in a driver's kernel code cannot be reaped: do not wait for it for ever.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        for reader in self._readers:
            reader.join(1)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_answers(self, stream: IO[bytes]) -> None:
        for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
            # A child that is killed while it writes leaves half a line; one whose memory is corrupt writes anything.
            with contextlib.suppress(ValueError, RecursionError):
                self._answers.put(decode_line(line))
        self._answers.put(None)

    def _read_errors(self, stream: IO[bytes]) -> None:
        for line in iter(lambda: stream.readline(_LONGEST_ERROR_LINE), b""):
            self._last_words.append(line.decode(errors="replace").rstrip())

    def _death(self) -> ChildDied:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._readers[1].join(1)
        return ChildDied(describe_exit(self._process.returncode), "\n".join(self._last_words).strip())


def describe_exit(returncode: int | None) -> str:
    """Return how a process ended, in words: ``was ended by SIGSEGV (signal 11)``."""
    if returncode is None:
        return "closed its pipes"
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        return f"was ended by signal {-returncode}"
    return f"was ended by {name} (signal {-returncode})"
