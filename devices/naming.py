"""From what a driver calls a GPU to what its owner would call it: a key that survives driver updates.

Drivers put their own names and versions beside the model: ``llvmpipe (LLVM 15.0.6, 256 bits)``, ``AMD Radeon RX 6800
(RADV NAVI21)``, ``Mesa Intel(R) UHD Graphics 620 (KBL GT2)``, ``NVIDIA GeForce RTX 3060/PCIe/SSE2``.
"""

from __future__ import annotations

import re

# PCI vendor ids, and Khronos' own for vendors without one (the Vulkan registry's VkVendorId).
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
    """A short lower-case vendor: by id where it is known, else slugged from what the driver says, else ``unknown``."""
    return _VENDORS.get(vendor_id) or slug(reported) or "unknown"


def driver_name(description: str, vendor: str) -> str:
    """The driver's description of itself, else its name, which wgpu reports as the vendor; SwiftShader has no other."""
    return description.strip() or vendor.strip()


def model_and_architecture(reported: str) -> tuple[str, str]:
    """The model without trademarks and driver versions, and the chip or architecture that the name carries (or "").

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
    """``prefix:model`` as a slug; the chip is added where the model is a family's name such as "AMD Radeon Graphics".

    Names of that kind carry no number, and stand for many different GPUs: their records must not mix.
    """
    if architecture and not any(c.isdigit() for c in model):
        model = f"{model} {architecture}"
    return f"{prefix}:{slug(model)}"


def slug(text: str) -> str:
    """Lower-case letters and digits, everything else one hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
