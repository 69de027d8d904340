"""What a user must know before a device draws a bundle, because of the quirks of the device's driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...devices.quirks import quirks_of
from ...devices.wgsl_loops import thread_iterations
from ..format.plan import Plan
from ..format.reader import Bundle, BundleProgram
from ..format.shader_constants import with_constants

if TYPE_CHECKING:
    from ...devices.device import Device


def driver_warnings(bundle: Bundle, program: BundleProgram, device: Device) -> tuple[str, ...]:
    """Return a sentence for each reason why ``device`` may draw wrongly with ``program``; none for most devices.

    Raises:
        BundleError: a shader of the bundle is damaged.
    """
    most = quirks_of(device).max_thread_iterations
    if most is None:
        return ()
    long = sum(1 for source in _sources(bundle, program.plan) if thread_iterations(source)[0] > most)
    if not long:
        return ()
    shaders = "1 shader of this bundle loops" if long == 1 else f"{long} shaders of this bundle loop"
    return (
        f"the picture may be wrong: the driver of {device.key} ends a thread's loops after {most:,} iterations, and "
        f"{shaders} for longer; tune on it, and build with --device {device.key}",
    )


def _sources(bundle: Bundle, plan: Plan) -> Iterator[str]:
    """Yield each shader of ``plan`` as it runs: with the constants of each of its uniforms."""
    words: dict[int, set[tuple[int, ...]]] = {index: set() for index in range(len(plan.shaders))}
    for dispatch in (one for stage in plan.stages.values() for one in stage):
        words[dispatch.shader].add(plan.buffers[dispatch.bindings[-1].buffer].words if dispatch.bindings else ())
    for shader, uniforms in zip(plan.shaders, words.values(), strict=True):
        source = bundle.read(shader.file).decode("utf-8")
        yield from {with_constants(source, one) for one in uniforms} or {source}
