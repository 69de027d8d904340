"""A child process that answers questions over which it may crash or hang; a new one takes its place.

TVM's `tvm.support.popen_pool` cannot replace it: it unpickles in this process whatever the child writes, and the child
reads files of unknown origin. It also drops the signal that ended a child.
"""

from __future__ import annotations

import time
from typing import Any

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.formatting import duration


class EntryFailed(Exception):
    """The child crashed over an entry, took too long, or says what is wrong with it; the message says which."""


class RestartingChild:
    """A child process that answers questions about one subject at a time, started again after a crash.

    Args:
        module: run as ``python -m``. It reads lines of JSON and answers each in one line, except those with a subject.
        limit_s: seconds that a question may take, the start of a child included.
    """

    def __init__(self, module: str, limit_s: float) -> None:
        self._module = module
        self._limit_s = limit_s
        self._child: Child | None = None
        self._subject = ""

    def __enter__(self) -> RestartingChild:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()

    def ask(self, question: dict[str, Any], subject: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
        """Return the answer to ``question``.

        Args:
            question: sent as one line.
            subject: what the question is about; sent before it unless the child has it already.
            name: identifies the subject.

        Raises:
            EntryFailed: the child crashed or took too long, and is gone. The next question starts another one.
        """
        try:
            if self._child is None:
                self._child = Child(self._module)
            if subject is not None and self._subject != name:
                self._child.send(subject)
                self._subject = name
            self._child.send(question)
            return self._child.receive(time.monotonic() + self._limit_s)
        except ChildTimeout:
            self._drop()
            raise EntryFailed(f"TVM took longer than {duration(self._limit_s)}") from None
        except ChildDied as death:
            self._drop()
            raise EntryFailed(f"it takes TVM down: {death.how}") from None

    def _drop(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child, self._subject = None, ""
