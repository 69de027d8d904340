"""The child's side of a TVM worker: as `wgtune.devices.worker_process`, with TVM's own runtime in place of wgpu.

Started as ``python -m wgtune.devices.tvm_process``; the requests and answers are the same.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from .device import Device
from .serving import Answer, Requests, serve
from .wire import Phase, job_from_json, measurement_to_json


def main(requests: Requests, answer: Answer) -> int:
    """Serves until standard input ends, which it does when the parent is gone, however it went."""
    device = Device.from_json(requests.get()["open"])
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
    from .case_file import CaseError
    from .tvm_bench import TvmBench

    bench = TvmBench(device)
    answer({"id": 0, "ready": True})
    while True:
        request = requests.get()
        number = request["id"]

        def notify(phase: Phase, number: int = number) -> None:
            answer({"id": number, "phase": phase.value})

        if "calibrate" in request:
            answer({"id": number, "result": asdict(bench.measure_peaks(notify))})
            continue
        try:
            measurement = bench.measure(job_from_json(request["measure"]), notify)
        except CaseError as error:
            answer({"id": number, "refused": str(error)})
            continue
        answer({"id": number, "result": measurement_to_json(measurement)})


if __name__ == "__main__":
    sys.exit(serve(main))
