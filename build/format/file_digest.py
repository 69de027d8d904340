"""SHA-256 of a file and of its pieces, so that a browser can check each piece as it arrives."""

from __future__ import annotations

import hashlib

from .manifest import PIECE_BYTES, FileInfo


class FileDigest:
    """Digests of bytes that come in any portions."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._piece = hashlib.sha256()
        self._pieces: list[str] = []
        self._nbytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self._whole.update(data)
        view = memoryview(data).cast("B")
        while view:
            if self._nbytes and self._nbytes % PIECE_BYTES == 0:
                self._end_piece()
            part = view[: PIECE_BYTES - self._nbytes % PIECE_BYTES]
            self._piece.update(part)
            self._nbytes += len(part)
            view = view[len(part) :]

    def info(self, plans: tuple[str, ...] = ()) -> FileInfo:
        """Return size and digests of the file, which is at its end."""
        whole = self._whole.hexdigest()
        if not self._pieces:
            return FileInfo(self._nbytes, whole, plans=plans)
        return FileInfo(self._nbytes, whole, (*self._pieces, self._piece.hexdigest()), plans)

    def _end_piece(self) -> None:
        self._pieces.append(self._piece.hexdigest())
        self._piece = hashlib.sha256()


def file_info(data: bytes, plans: tuple[str, ...] = ()) -> FileInfo:
    """Return size and digests of a file with this content."""
    digest = FileDigest()
    digest.update(data)
    return digest.info(plans)
