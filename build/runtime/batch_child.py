"""The child process of `wgtune.build.runtime.batch`: draws the requests on standard input on one device.

Started as ``python -m wgtune.build.runtime.batch_child``; messages are JSON objects, one per line.

| request | answers |
|---|---|
| `{"bundle": folder, "device": device, "options": options}` | `{"loading": what, "done": share}` …, `{"ready": true}` |
| `{"prompt": text, "seed": n, "path": file}` | `{"step": i, "of": n}` …, `{"drawn": seconds}` |

An image that cannot be written is answered with `{"failed": message}`. Where the bundle or the device cannot be used,
the process answers `{"refused": message, "hint": hint}` and ends.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ...devices.device import Device
from ...support.child_main import Answer, Requests, serve
from ...support.errors import DeviceError, WgtuneError


def main(requests: Requests, answer: Answer) -> int:
    """Serve requests until standard input ends, which it does when the parent ends for any reason."""
    first = requests.get()
    # Imported here, so that the parent's end is noticed while loading a driver hangs.
    from ...devices.webgpu.gpu import use_backend
    from ..format.reader import Bundle
    from .painter import GenerateOptions, Painter, resolve_options

    device = Device.from_json(first["device"])
    use_backend(device.backend)
    bundle = Bundle.open(first["bundle"])
    settings = resolve_options(bundle, GenerateOptions(**first["options"]))
    with Painter(bundle, device, settings, lambda what, done: answer({"loading": what, "done": done})) as painter:
        answer({"ready": True})
        while True:
            request = requests.get()
            started = time.perf_counter()
            try:
                painter.draw(
                    request["prompt"],
                    request["seed"],
                    Path(request["path"]),
                    lambda step, calls: answer({"step": step, "of": calls}),
                )
            except DeviceError:
                raise  # the driver's state is unknown: the parent starts another process
            except WgtuneError as error:
                answer({"failed": error.message})
                continue
            answer({"drawn": time.perf_counter() - started})


if __name__ == "__main__":
    sys.exit(serve(main))
