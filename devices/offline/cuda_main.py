"""Compile CUDA for one chip of NVIDIA's: ``python -m wgtune.devices.offline.cuda_main CHIP``.

A process of its own, as for any compiler. `chips.start_chip` starts it; the first answer names the compilers, each
further one is a kernel's facts.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial

from ...support.child_main import Answer, Requests, serve
from ...support.errors import DeviceError
from .cuda import CudaCompiler, CudaError


def main(chip: str, requests: Requests, answer: Answer) -> int:
    """Answer requests until the parent ends this process."""
    try:
        compiler = CudaCompiler(chip)
    except (CudaError, OSError) as error:
        raise DeviceError(str(error)) from None
    answer({"device": chip, "driver": compiler.version})
    while True:
        request = requests.get()
        try:
            facts = compiler.compile(request["source"], request["entry"], request["threads"])
            answer({"facts": asdict(facts)})
        except CudaError as error:
            answer({"error": str(error)})


if __name__ == "__main__":
    sys.exit(serve(partial(main, sys.argv[1])))
