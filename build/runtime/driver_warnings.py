"""What a user must know before a device draws a bundle, because of the quirks of the device's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...devices.quirks import quirks_of
from ...devices.wgsl_loops import thread_iterations
from ..format.reader import Bundle

if TYPE_CHECKING:
    from ...devices.device import Device


def driver_warnings(bundle: Bundle, device: Device) -> tuple[str, ...]:
    """Return a sentence for each reason why ``device`` may draw ``bundle`` wrongly; none for most devices.

    Raises:
        BundleError: a shader of the bundle is damaged.
    """
    most = quirks_of(device).max_thread_iterations
    if most is None:
        return ()
    sources = (bundle.read(shader.file).decode("utf-8") for shader in bundle.plan.shaders)
    long = sum(1 for source in sources if thread_iterations(source)[0] > most)
    if not long:
        return ()
    shaders = "1 shader of this bundle loops" if long == 1 else f"{long} shaders of this bundle loop"
    return (
        f"the picture may be wrong: the driver of {device.key} ends a thread's loops after {most:,} iterations, and "
        f"{shaders} for longer; tune on it, and build with --device {device.key}",
    )
