"""Child process of `json_export` and `json_import`: reads and writes entries of JSONDatabase until its input ends.

Started as ``python -m wgtune.tuner.interop.json_child``. A request with a ``subject`` has no answer: it is a workload,
as TVM's JSONDatabase writes it (``entry``) or as wgtune stores it (``text``, ``module``). Questions are about the last
subject:

- ``{"ask": "workload"}``: the workload as wgtune stores it (``info``) and as TVM writes it (``entry``).
- ``{"ask": "read", "record": …}``: a tuning record of TVM's as ``trace``, ``seconds`` and ``target``.
- ``{"ask": "write", "trace": …, "seconds": …, "target": …}``: the tuning record (``record``) that TVM writes.

A question that fails is answered by ``{"unreadable": reason}``.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict
from typing import Any

from ...support.child_main import Answer, Requests, serve
from ...support.errors import first_line

_LENGTH = 8
"""Bytes in which TVM writes the length of a module, little-endian."""


def main(requests: Requests, answer: Answer) -> int:
    """Answer requests until the process ends."""
    subject: Any = None
    while True:
        request = requests.get()
        if "subject" in request:
            subject = request["subject"]
            continue
        try:
            if isinstance(subject, dict):
                subject = _load(subject)
            found = _ANSWERS[request["ask"]](subject, request)
        except Exception as error:  # TVM raises many kinds over JSON that it did not write
            found = {"unreadable": first_line(error)}
        answer(found)


def _load(subject: dict[str, Any]) -> Any:
    """Return the subject as an IRModule; raises ValueError or TVM's errors."""
    import tvm
    from tvm.s_tir.meta_schedule.database import Workload

    from ...database.tvm.kernel_identity import canonical_text
    from ...database.tvm.modules import workload_of
    from ...database.tvm.traces import ENTRY

    if "entry" in subject:
        entry = subject["entry"]
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            raise ValueError("it is not a hash and a module")
        _check_graph(entry[1])
        module = Workload.from_json(entry).mod
        if workload_of(module) is None:
            raise ValueError("it is not one function of TensorIR that can be identified")
        return module
    func = tvm.ir.load_json(subject["module"])
    if canonical_text(func) != subject["text"]:
        raise ValueError("its kernel's form is another kernel")
    return tvm.IRModule({ENTRY: func})


def _check_graph(encoded: str) -> None:
    """Raise ValueError where a module is not in the form that the installed TVM reads; TVM's own message says little.

    A module is JSON after its length in eight bytes (`Base64Encode` in TVM's ``src/s_tir/meta_schedule/utils.h``).
    """
    import tvm

    written = base64.b64decode(encoded, validate=True)
    if len(written) < _LENGTH or int.from_bytes(written[:_LENGTH], "little") != len(written) - _LENGTH:
        raise ValueError("its module is cut off")
    graph = json.loads(written[_LENGTH:])
    if not isinstance(graph, dict) or "nodes" not in graph:
        raise ValueError("its module is not a graph of TVM's")
    if "root_index" not in graph:  # TVM called it "root" until 2025; nodes had other fields then
        attributes = graph.get("attrs")
        version = attributes.get("tvm_version", "") if isinstance(attributes, dict) else ""
        raise ValueError(f"TVM {version or 'of another form'} wrote it, which TVM {tvm.__version__} does not read")


def _workload(module: Any, _request: dict[str, Any]) -> dict[str, Any]:
    from tvm.s_tir.meta_schedule.database import Workload

    from ...database.tvm.modules import describe_workload

    return {"info": asdict(describe_workload(module)), "entry": Workload(module).as_json()}


def _read(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    from ...database.tvm.modules import named_by_position
    from ...database.tvm.traces import is_trace, trace_values, translated

    record = request["record"]
    if not (isinstance(record, list) and len(record) == 4):
        raise ValueError("it is not a trace, times, a target and arguments")
    trace, seconds, target, _ = record
    if not is_trace(trace):
        raise ValueError("its trace is not made of instructions and decisions")
    if not (seconds is None or (isinstance(seconds, list) and all(isinstance(s, int | float) for s in seconds))):
        raise ValueError("its times are not numbers")
    if not (target is None or isinstance(target, dict)):
        raise ValueError("its target is not one of TVM's")
    schedule = translated(trace, module, named_by_position(module))
    return {
        "trace": json.dumps(trace_values(schedule.trace), separators=(",", ":")),
        "seconds": [float(second) for second in seconds or ()],
        "target": target,
    }


def _write(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    from ...database.tvm.database import readable_target
    from ...database.tvm.traces import ENTRY, apply_trace, is_trace, plain, trace_values

    trace = json.loads(request["trace"])
    if not is_trace(trace):
        raise ValueError("its trace is not made of instructions and decisions")
    schedule = apply_trace(module, trace)
    # `TuningRecord.as_json` fails where an instruction takes an index map.
    target = readable_target(request["target"])
    described = None if target is None else json.loads(str(target))
    arguments = [plain(one.as_json()) for one in ArgInfo.from_prim_func(module[ENTRY])]
    return {"record": [trace_values(schedule.trace), request["seconds"], described, arguments]}


_ANSWERS = {"workload": _workload, "read": _read, "write": _write}


if __name__ == "__main__":
    sys.exit(serve(main))
