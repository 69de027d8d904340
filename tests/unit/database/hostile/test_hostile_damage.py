"""Damaged files: whatever bytes are cut off or changed, a reader gets what was written or an error in words."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from hostile import EXAMPLES, make, read_everything, report_everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_database import fill

from wgtune.database.exchange import admin
from wgtune.database.store import Store
from wgtune.support.errors import DatabaseError, WgtuneError

pytestmark = pytest.mark.slow

FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "x.db")


class Content(bytes):
    def __repr__(self):
        return "Content(…)"  # hypothesis prints what a failing test was given


class Answers(list):
    def __repr__(self):
        return "Answers(…)"


@pytest.fixture(scope="module")
def content(whole):
    return Content(whole.read_bytes())


@pytest.fixture(scope="module")
def answers(whole):
    return Answers(read_everything(whole))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def try_everything(folder, content, log=None):
    """Everything that reads, on a file of this content; what the readers answer, or None where they refuse."""
    path = folder / "x.db"
    for stale in folder.glob("x.db*"):
        stale.unlink()
    path.write_bytes(content)
    if log is not None:
        path.with_name("x.db-wal").write_bytes(log)
    found = None
    with contextlib.suppress(DatabaseError):
        found = read_everything(path)
    with contextlib.suppress(WgtuneError):
        report_everything(path, folder / "page.html")
    with contextlib.suppress(DatabaseError):
        admin.check(str(path))
    return found


def is_honest(found, answers):
    """Whether nothing came back changed that has a checksum: texts and traces."""
    if found is None or found == answers:
        return True
    traces = {summary.trace for of_kernel in answers[10:] for summary in of_kernel}
    texts = {info.text for info in answers[9].values()}
    return {summary.trace for of_kernel in found[10:] for summary in of_kernel} <= traces and {
        info.text for info in found[9].values()
    } <= texts


def test_a_file_cut_short_anywhere(folder, content, answers):
    page = 4096
    cuts = {0, 1, 15, 16, 17, 24, 99, 100, 101, page - 1, page, page + 1, len(content) - 1, len(content) - page}
    for cut in sorted(cuts | set(range(page, len(content), 11 * page + 13))):
        found = try_everything(folder, content[:cut])
        assert cut == len(content) or found != answers, cut


@FUZZ
@given(data=st.data())
def test_bytes_changed_anywhere(data, folder, content, answers):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    assert is_honest(try_everything(folder, bytes(damaged)), answers)


@FUZZ
@given(data=st.data())
def test_bytes_changed_in_rows(data, folder, content, answers):
    """Closer to home: within text that a row holds, where SQLite itself sees nothing wrong."""
    words = [b"timestamp", b"running", b"vulkan", b"2026-", b"wgtune", b"threads", b"x\x9c", b"search", b"kernel "]
    places = [at for word in words for at in _all(content, word)]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places)) + data.draw(st.integers(-40, 40))
        damaged[min(max(at, 100), len(content) - 1)] = data.draw(st.integers(0, 255))
    assert is_honest(try_everything(folder, bytes(damaged)), answers)


@FUZZ
@given(data=st.data())
def test_pages_swapped_zeroed_or_repeated(data, folder, content, answers):
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    first, second = (data.draw(st.integers(0, len(pages) - 1)) for _ in range(2))
    pages[first] = data.draw(st.sampled_from([pages[second], bytes(4096), b"\xff" * 4096, pages[first][::-1]]))
    assert is_honest(try_everything(folder, b"".join(pages)), answers)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A database whose last writes lie in its log, as a kill leaves it, and what it says."""
    folder = tmp_path_factory.mktemp("logged")
    with Store.open(str(folder / "x.db")) as store:
        fill(store)
        files = [Content((folder / name).read_bytes()) for name in ("x.db", "x.db-wal")]
        assert len(files[1]) > 100_000
    (folder / "x.db").write_bytes(files[0])
    (folder / "x.db-wal").write_bytes(files[1])
    return (*files, Answers(read_everything(folder / "x.db")))


@settings(FUZZ, max_examples=EXAMPLES // 4)  # each of them waits for the disk
@given(data=st.data())
def test_bytes_changed_in_the_log(data, folder, logged):
    """Each frame of a log has a checksum: what was committed before the damage is there, as it was."""
    content, log, answers = logged
    damaged = bytearray(log)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(log) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.sampled_from([len(log), len(log) // 2]))]
    assert is_honest(try_everything(folder, content, bytes(damaged)), answers)


@FUZZ
@given(content=st.binary(max_size=300), header=st.booleans())
def test_any_bytes_at_all(content, header, folder):
    found = try_everything(folder, b"SQLite format 3\0" * header + content)
    assert found is None or not any(found)


@pytest.mark.parametrize("column", ["workload.text", "schedule.trace", "schedule.digest", "workload.digest"])
def test_checksums_are_compared(whole, tmp_path, column):
    from hostile import change

    path = shutil.copy(whole, tmp_path / "x.db")
    table, name = column.split(".")
    # Another row's value is whole in itself.
    change(path, "DROP INDEX IF EXISTS x", f"UPDATE {table} SET {name} = 'f' || substr({name}, 2) WHERE id = 3")
    if name == "trace":
        change(path, "UPDATE schedule SET trace = (SELECT trace FROM schedule WHERE id = 2) WHERE id = 3")
    assert any("SHA-256" in problem or "cannot be read" in problem for problem in admin.check(str(path)))


def _all(content, word):
    at = content.find(word)
    while at >= 0:
        yield at
        at = content.find(word, at + 1)
