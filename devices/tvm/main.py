"""The child's side of a TVM worker: as `wgtune.devices.webgpu.main`, with TVM's own runtime in place of wgpu.

Started as ``python -m wgtune.devices.tvm.main``; the requests and answers are the same.
"""

from __future__ import annotations

import sys

from ...support.child_main import Answer, Requests, serve
from ..device import Device
from ..webgpu.main import answer_jobs


def main(requests: Requests, answer: Answer) -> int:
    """Serves the device that the first request names."""
    device = Device.from_json(requests.get()["open"])
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
    from .bench import TvmBench

    bench = TvmBench(device)
    return answer_jobs(requests, answer, bench.measure, bench.prepare, bench.measure_peaks)


if __name__ == "__main__":
    sys.exit(serve(main))
