"""The child's side of `wgtune.build.runtime.batch`: one bundle on one device, drawing what standard input asks for.

Started as ``python -m wgtune.build.runtime.batch_child``; messages are JSON objects, one a line.

| request | answers |
|---|---|
| `{"bundle": folder, "device": device, "options": options}` | `{"loading": what, "done": share}` …, `{"ready": true}` |
| `{"prompt": text, "seed": n, "path": file}` | `{"step": i, "of": n}` …, `{"drawn": seconds}` |

A picture that cannot be written is answered with `{"failed": message}`. A bundle or a device that nothing can be
drawn with ends the process after `{"refused": message, "hint": hint}`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ...devices.device import Device
from ...support.child_main import Answer, Requests, serve
from ...support.errors import DeviceError, WgtuneError


def main(requests: Requests, answer: Answer) -> int:
    """Serves until standard input ends, which it does when the parent is gone, however it went."""
    first = requests.get()
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
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
                raise  # nothing says what state the driver is in: the parent starts another process
            except WgtuneError as error:
                answer({"failed": error.message})
                continue
            answer({"drawn": time.perf_counter() - started})


if __name__ == "__main__":
    sys.exit(serve(main))
