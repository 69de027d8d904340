"""Map a page's description of its browser's GPU to a device."""

from __future__ import annotations

import re
from typing import Any

from ...support.enums import Runtime
from ...support.errors import DeviceError
from ..device import Device
from ..naming import device_key, model_and_architecture, slug

_SOFTWARE = re.compile("swiftshader|llvmpipe|lavapipe|basic render", re.IGNORECASE)
_FAMILIES = (
    ("Edg/", "edge"),
    ("OPR/", "opera"),
    ("Firefox/", "firefox"),
    ("Chrome/", "chrome"),
    ("Version/", "safari"),
)
"""Marks of the user agent string, by which browsers are told apart; checked in this order."""


def browser_device(adapter: dict[str, Any]) -> Device:
    """Return the device that a page describes (``Adapter`` in web/lender/protocol.ts).

    The browser is part of the key, since each compiles WGSL in its own way, and their times must not mix. Its version
    is the driver. Raises DeviceError where the description has another shape.
    """
    try:
        words = {name: str(adapter[name]) for name in ("vendor", "architecture", "device", "description", "userAgent")}
        limits = {str(name): int(value) for name, value in adapter["limits"].items()}
        features = tuple(str(feature) for feature in adapter["features"])
        fallback = bool(adapter["fallback"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeviceError(
            f"the page describes its GPU in a way that cannot be read ({error!r})", "reload it, or use another browser"
        ) from error
    model, architecture = model_and_architecture(words["description"] or words["device"])
    if model == "unknown":
        model = " ".join(part for part in (words["vendor"], words["architecture"]) if part) or "unknown"
    architecture = words["architecture"] or architecture
    family, version = _browser(words["userAgent"])
    software = fallback or bool(_SOFTWARE.search(" ".join(words.values())))
    return Device(
        key=device_key("browser", f"{family} {model}", "" if architecture in slug(model) else architecture),
        backend="browser",
        vendor=slug(words["vendor"]) or "unknown",
        architecture=architecture,
        model=model,
        driver=f"{family} {version}".strip(),
        adapter_type="cpu" if software else "unknown",
        software=software,
        limits=limits,
        features=features,
        runtime=Runtime.BROWSER,
        index=0,
    )


def _browser(user_agent: str) -> tuple[str, str]:
    """Return the browser's family and major version: ``("chrome", "156")``."""
    for mark, family in _FAMILIES:
        if found := re.search(re.escape(mark) + r"(\d+)", user_agent.replace("HeadlessChrome", "Chrome")):
            return family, found.group(1)
    return "unknown", ""
