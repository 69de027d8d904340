"""Child process of `wgtune.tuner.interop.replay`: applies schedules until its input ends.

Started as ``python -m wgtune.tuner.interop.replay_child``. A request with a kernel (``name``, ``text``, ``module``,
``outputs``) has no answer. A request with a schedule of that kernel (``trace``, ``tiers``) is answered by
``{"digest": …}``, the program's digest in the first tier that it fits, or by ``{"stale": reason}``.
"""

from __future__ import annotations

import sys
from typing import Any

from ...devices.limits import TIERS
from ...support.child_main import Answer, Requests, serve
from ...support.errors import first_line


def main(requests: Requests, answer: Answer) -> int:
    """Answer requests until the process ends."""
    kernel: Any = None
    while True:
        request = requests.get()
        if "module" in request:
            kernel = request
            continue
        if isinstance(kernel, dict):
            kernel = _kernel(kernel)
        answer(_replay(kernel, request["trace"], request["tiers"]))


def _kernel(stored: dict[str, Any]) -> Any:
    """Return the `Kernel`, or the reason (str) why it cannot be read."""
    from ...database.tvm.graph_json import load_json
    from ...database.tvm.kernel_identity import canonical_text
    from ..capture.kernel import make_kernel

    try:
        func = load_json(stored["module"])
        if canonical_text(func) != stored["text"]:
            return "its kernel's form is another kernel"
        return make_kernel(stored["name"], func, stored["outputs"])
    except Exception as error:  # TVM raises many kinds over JSON that it did not write
        return f"its kernel cannot be read: {first_line(error)}"


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


if __name__ == "__main__":
    sys.exit(serve(main))
