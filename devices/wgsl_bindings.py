"""Bindings that a WGSL module declares."""

from __future__ import annotations

import re


def binding_types(source: str) -> list[str]:
    """Return the ``GPUBufferBindingType`` of each binding of group 0 that a WGSL module declares, in order.

    Raises ValueError where the numbers are not 0, 1, 2, …
    """
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL)
    found: dict[int, str] = {}
    for attributes, space, access in re.findall(
        r"((?:@\w+\s*\([^)]*\)\s*)+)var\s*<\s*(storage|uniform)\s*(?:,\s*(\w+)\s*,?\s*)?>", code
    ):
        number = re.search(r"@binding\s*\(\s*(\d+)", attributes)
        if number is None:
            continue
        kind = "storage" if access == "read_write" else "read-only-storage"
        found[int(number.group(1))] = "uniform" if space == "uniform" else kind
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"the shader's bindings are numbered {sorted(found)}, not from 0 without gaps")
    return [found[number] for number in sorted(found)]
