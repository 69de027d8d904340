"""The child of `wgtune.tuner.interop.replay`: applies schedules until its input ends, or until one of them ends it.

Started as ``python -m wgtune.tuner.interop.replay_child``. A line of JSON with a kernel (``name``, ``text``,
``module``, ``outputs``) has no answer; one with a schedule of it (``trace``, ``tiers``) is answered by
``{"digest": …}`` or ``{"stale": why}``.
"""

from __future__ import annotations

import os
import sys
from typing import IO, Any

from ...devices.limits import TIERS
from ...support.errors import WgtuneError
from ...support.json_lines import decode_line, encode_line


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Serves until the requests end."""
    kernel: Any = None
    for line in requests:
        request = decode_line(line)
        if "module" in request:
            kernel = request
            continue
        if isinstance(kernel, dict):
            kernel = _kernel(kernel)
        answers.write(encode_line(_replay(kernel, request["trace"], request["tiers"])))
        answers.flush()


def _kernel(stored: dict[str, Any]) -> Any:
    """The kernel, or in words why there is none."""
    import tvm

    from ...database.tvm.kernel_identity import canonical_text
    from ..capture.kernel import make_kernel

    try:
        func = tvm.ir.load_json(stored["module"])
        if canonical_text(func) != stored["text"]:
            return "its kernel's form is another kernel"
        return make_kernel(stored["name"], func, stored["outputs"])
    except Exception as error:  # whatever TVM raises over JSON that is not its own
        return f"its kernel cannot be read: {_first_line(error)}"


def _replay(kernel: Any, trace: str, tiers: list[str]) -> dict[str, str]:
    from ..codegen.traces import TraceError, replay
    from ..codegen.wgsl import EmitError, emit_wgsl

    if isinstance(kernel, str):
        return {"stale": kernel}
    try:
        module = replay(kernel, trace).mod
    except TraceError as error:
        return {"stale": error.message}
    reason = ""
    for name in tiers:
        if name not in TIERS:
            reason = f"there is no tier {name!r} any more"
            continue
        try:
            return {"digest": emit_wgsl(module, TIERS[name]).digest}
        except EmitError as error:
            reason = error.message
    return {"stale": reason} if reason else {"digest": ""}


def _first_line(error: Exception) -> str:
    if isinstance(error, WgtuneError):
        return error.message
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    # Whatever TVM prints must not be taken for an answer.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    main(sys.stdin.buffer, channel)
