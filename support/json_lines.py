"""Messages between two processes: one JSON object a line.

Both ends are Python, which writes and reads NaN as a bare word.
"""

from __future__ import annotations

import json
from typing import Any


def encode_line(message: dict[str, Any]) -> bytes:
    """One message, newline included."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """The inverse of `encode_line`; raises ValueError on anything else."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"a message must be a JSON object, not {message!r}")
    return message
