"""Messages between two processes: one JSON object per line.

Both ends are Python, which writes and reads NaN as a bare word, unlike JSON.
"""

from __future__ import annotations

import json
from typing import Any


def encode_line(message: dict[str, Any]) -> bytes:
    """Return one message as a line, with its newline."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """Return the message of a line; raises ValueError where the line is no JSON object."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"a message must be a JSON object, not {message!r}")
    return message
