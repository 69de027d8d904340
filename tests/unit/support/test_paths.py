"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgtune.support.paths import replaced_file


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file.bin"
    with replaced_file(path) as whole:
        whole.write_bytes(b"half")
        assert not path.exists() and whole.parent == path.parent
        whole.write_bytes(b"all of it")
    assert path.read_bytes() == b"all of it" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_where_writing_ends_early(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"earlier")
    with pytest.raises(error), replaced_file(path) as whole:
        whole.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]
