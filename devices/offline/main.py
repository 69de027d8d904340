"""Compile SPIR-V for one AMD chip: ``python -m wgtune.devices.offline.main ICD_FILE FAMILY``.

A process of its own, because a driver may crash, and ends the process where it does not know the chip.
`chips.start_chip` starts it; the first answer names the driver, each further one is a shader's facts.
"""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import asdict
from functools import partial

from ...support.child_main import Answer, Requests, serve
from ...support.errors import DeviceError, first_line
from .facts import facts_of
from .spirv import reflect
from .vulkan import VulkanDevice

_HARDWARE_FREE = "null hardware"
"""What RADV's name of a device without hardware says."""


def main(manifest: str, family: str, requests: Requests, answer: Answer) -> int:
    """Answer requests until the parent ends this process."""
    os.environ.update(
        VK_DRIVER_FILES=manifest,
        VK_ICD_FILENAMES=manifest,  # of loaders before 1.3.207
        RADV_FORCE_FAMILY=family,
        RADV_DEBUG="nocache",
        MESA_SHADER_CACHE_DISABLE="true",
    )
    device = VulkanDevice()
    if _HARDWARE_FREE not in device.name.lower():
        raise DeviceError(f"RADV opened {device.name!r} instead of a device without hardware")
    answer({"device": device.name, "driver": device.driver})
    while True:
        request = requests.get()
        code = base64.b64decode(request["spirv"])
        try:
            reflected = reflect(code)
            compiled = device.compile(code, reflected.entry, reflected.bindings)
            answer({"facts": asdict(facts_of(compiled.statistics, compiled.texts))})
        except (DeviceError, ValueError, KeyError) as error:
            answer({"error": first_line(error)})


if __name__ == "__main__":
    sys.exit(serve(partial(main, sys.argv[1], sys.argv[2])))
