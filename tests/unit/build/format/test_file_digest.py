"""Digests of files and of their pieces, whatever portions the bytes come in."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from folders import TESTS
from hypothesis import given
from hypothesis import strategies as st

from wgtune.build.format import file_digest
from wgtune.build.format.file_digest import FileDigest, file_info
from wgtune.build.format.manifest import FileInfo, Manifest
from wgtune.support.errors import BundleError


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_pieces_do_not_depend_on_how_the_bytes_come(portions: list[bytes]) -> None:
    data = b"".join(portions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_digest, "PIECE_BYTES", 16)
        digest = FileDigest()
        for portion in portions:
            digest.update(memoryview(portion))
        pieces = tuple(hashlib.sha256(data[i : i + 16]).hexdigest() for i in range(0, len(data), 16))
        expected = FileInfo(len(data), hashlib.sha256(data).hexdigest(), pieces if len(data) > 16 else ())
        assert digest.info() == file_info(data) == expected


def test_a_file_of_more_than_a_piece_needs_its_digests() -> None:
    tiny_manifest = Manifest.from_json((TESTS / "data" / "bundle_format" / "manifest.json").read_bytes())
    name = next(iter(tiny_manifest.files))
    long = file_info(bytes((4 << 20) + 1))
    assert len(long.pieces) == 2

    def read(info: FileInfo) -> Manifest:
        return Manifest.from_json(replace(tiny_manifest, files={**tiny_manifest.files, name: info}).to_json())

    plans = tiny_manifest.files[name].plans
    assert read(FileInfo(long.nbytes, long.sha256, long.pieces, plans)).files[name].pieces == long.pieces
    for nbytes, pieces in ((long.nbytes, ()), (long.nbytes, long.pieces[:1]), (5, long.pieces[:1])):
        with pytest.raises(BundleError, match="pieces has"):
            read(FileInfo(nbytes, long.sha256, pieces, plans))
