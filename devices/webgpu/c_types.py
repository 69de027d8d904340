"""Quick look-up of the C types through which wgpu calls its native library.

wgpu names types, such as ``WGPULimits *``, to cffi. For each new name cffi runs a C parser over the names of all types
that it knows, which takes 10 ms. A process that opens a device and runs a shader uses sixty names: more time than the
driver takes.
"""

from __future__ import annotations

import re
from typing import Any


def use_quick_lookups() -> None:
    """Have cffi parse only the names that a type consists of, in this process from now on.

    Does nothing where the installed cffi is built in another way, since its parser has no public interface.
    """
    from wgpu.backends.wgpu_native import ffi

    parser: Any = getattr(ffi, "_parser", None)
    if hasattr(parser, "parse_type") and isinstance(getattr(parser, "_declarations", None), dict):
        parser.parse_type = _QuickLookup(parser)


class _QuickLookup:
    """Takes the place of the method ``parse_type`` of a `cffi.cparser.Parser`; cffi calls it under a lock."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    def __call__(self, cdecl: str) -> Any:
        """Return cffi's model of the type ``cdecl``."""
        known = self._parser._declarations
        names = [f"{kind} {word}" for word in re.findall(r"\w+", cdecl) for kind in ("typedef", "struct", "enum")]
        self._parser._declarations = {name: known[name] for name in names if name in known}
        try:
            # The class's own method, whose place this object takes.
            return type(self._parser).parse_type(self._parser, cdecl)
        finally:
            self._parser._declarations = known
