"""A core for each thread that computes, and for no other."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

from wgtune.devices.webgpu import cpu_affinity as placement
from wgtune.devices.webgpu.cpu_affinity import give_each_thread_a_core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what each thread did")


class _Threads:
    """Two threads that hash when they are told to, and one that never does anything."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._begin, self._end = threading.Barrier(3), threading.Barrier(3)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._hash) for _ in range(2)]
        self._threads.append(threading.Thread(target=self._over.wait))
        for thread in self._threads:
            thread.start()

    def work(self) -> None:
        self._begin.wait()
        self._end.wait()

    def close(self) -> None:
        self._over.set()
        self._begin.abort()
        for thread in self._threads:
            thread.join()

    def _hash(self) -> None:
        self.ids.append(threading.get_native_id())
        while True:
            try:
                self._begin.wait()
            except threading.BrokenBarrierError:
                return
            for _ in range(20):
                hashlib.sha256(bytes(4 << 20))  # without the interpreter's lock
            self._end.wait()


@pytest.fixture
def threads():
    made = _Threads()
    yield made
    made.close()


def test_threads_that_compute_get_different_cores_and_others_keep_all(threads: _Threads) -> None:
    cores = os.sched_getaffinity(0)
    before = {int(task.name): os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}
    assert give_each_thread_a_core(threads.work) == 2
    first, second = (os.sched_getaffinity(thread) for thread in threads.ids)
    assert len(first) == len(second) == 1
    assert first != second or len(cores) == 1
    assert os.sched_getaffinity(0) == cores
    assert all(os.sched_getaffinity(one) == own for one, own in before.items() if one not in threads.ids)


def test_threads_that_do_nothing_are_left_alone() -> None:
    assert give_each_thread_a_core(lambda: None) == 0


def test_a_system_that_tells_nothing_changes_nothing(
    threads: _Threads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(placement, "_THREADS", tmp_path / "nowhere")
    assert give_each_thread_a_core(threads.work) == 0
    assert all(len(os.sched_getaffinity(thread)) == len(os.sched_getaffinity(0)) for thread in threads.ids)
