"""Child process of `wgtune.devices.worker.factory.TvmWorker`, started as ``python -m wgtune.devices.tvm.main``.

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
    from .backend import TvmBackend

    answer_requests(requests, answer, TvmBackend(device))


if __name__ == "__main__":
    sys.exit(serve(main))
