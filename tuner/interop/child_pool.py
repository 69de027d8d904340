"""Asking a child process things over which it may die or hang: the next question gets a new child."""

from __future__ import annotations

import time
from typing import Any

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.formatting import duration


class Refused(Exception):
    """The child did not survive a question, or took too long over it; the message says how it went."""


class Isolated:
    """A child that answers questions about one subject at a time; another takes its place when it ends.

    ``module`` runs as ``python -m``, reads lines of JSON and answers each but those with a subject in one line. A
    question may take ``limit_s`` seconds, the start of a child included.
    """

    def __init__(self, module: str, limit_s: float) -> None:
        self._module = module
        self._limit_s = limit_s
        self._child: Child | None = None
        self._subject = ""

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()

    def ask(self, question: dict[str, Any], subject: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
        """The answer; ``subject``, called ``name``, is sent first where the child does not have it.

        Raises:
            Refused: it ended the child, or took too long; the child is gone.
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
            raise Refused(f"TVM took longer than {duration(self._limit_s)}") from None
        except ChildDied as death:
            self._drop()
            raise Refused(f"it takes TVM down: {death.how}") from None

    def _drop(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child, self._subject = None, ""
