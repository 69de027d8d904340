"""Map a reported GPU name to vendor, architecture, model, and a key that driver updates do not change.

Drivers add their own names and versions to the model: ``llvmpipe (LLVM 15.0.6, 256 bits)``, ``AMD Radeon RX 6800
(RADV NAVI21)``, ``Mesa Intel(R) UHD Graphics 620 (KBL GT2)``, ``NVIDIA GeForce RTX 3060/PCIe/SSE2``.
"""

from __future__ import annotations

import re

# PCI vendor ids, and the Vulkan registry's VkVendorId for vendors without one.
_VENDORS = {
    0x1002: "amd",
    0x106B: "apple",
    0x10DE: "nvidia",
    0x1010: "imagination",
    0x13B5: "arm",
    0x14E4: "broadcom",
    0x1414: "microsoft",
    0x144D: "samsung",
    0x1AE0: "google",
    0x5143: "qualcomm",
    0x8086: "intel",
    0x10001: "vivante",
    0x10005: "mesa",
}

_PARENTHESIS = re.compile(r"\(([^()]*)\)")
_TRADEMARK = re.compile(r"\((?:R|TM|C)\)|[®™©]", re.IGNORECASE)
_DRIVER_PART = re.compile(r"^(?:LLVM|DRM|Mesa|ACO|Subzero|\d)", re.IGNORECASE)


def vendor_name(vendor_id: int, reported: str) -> str:
    """Return a short lower-case vendor: by id if known, else the slug of the reported name, else ``unknown``."""
    return _VENDORS.get(vendor_id) or slug(reported) or "unknown"


def driver_name(description: str, vendor: str) -> str:
    """Return the driver's description; where it is empty (SwiftShader), the driver's name, which is in ``vendor``."""
    return description.strip() or vendor.strip()


def model_and_architecture(reported: str) -> tuple[str, str]:
    """Return the model without trademarks and driver versions, and the chip or architecture in the name, or "".

    >>> model_and_architecture("AMD Radeon RX 6800 (RADV NAVI21)")
    ('AMD Radeon RX 6800', 'navi21')
    >>> model_and_architecture("llvmpipe (LLVM 15.0.6, 256 bits)")
    ('llvmpipe', '')
    """
    name = _TRADEMARK.sub("", reported)
    architecture = ""
    for content in _PARENTHESIS.findall(name):
        chip = content.split(",")[0].removeprefix("RADV ").strip()
        if chip and not architecture and not _DRIVER_PART.match(chip):
            architecture = chip.lower()
    name = _PARENTHESIS.sub("", name).split("/PCIe")[0]
    name = " ".join(name.split()).removeprefix("Mesa ")
    return name or "unknown", architecture


def device_key(prefix: str, model: str, architecture: str) -> str:
    """Return ``prefix:model``, the model as a slug; the architecture is added to a model without a number.

    Such a model ("AMD Radeon Graphics") is a family of different GPUs, whose records must not mix.
    """
    if architecture and not any(c.isdigit() for c in model):
        model = f"{model} {architecture}"
    return f"{prefix}:{slug(model)}"


def slug(text: str) -> str:
    """Return ``text`` in lower case, with one hyphen for each run of characters that are no letters or digits."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
