"""Child process of `wgtune.devices.worker.worker.Worker`, started as ``python -m wgtune.devices.webgpu.main``.

`wgtune.devices.measure.job_loop` describes the requests and answers.
"""

from __future__ import annotations

import sys

from ...support.child_main import Answer, Requests, serve
from ..device import Device
from ..measure.job_loop import answer_requests


def main(requests: Requests, answer: Answer) -> int:
    """Open the device that the first request names, and serve it."""
    device = Device.from_json(requests.get()["open"])
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
    from . import gpu
    from .backend import WebGpuBackend

    gpu.use_backend(device.backend)
    answer_requests(requests, answer, WebGpuBackend(device))


if __name__ == "__main__":
    sys.exit(serve(main))
