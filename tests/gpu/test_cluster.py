"""A real Dask scheduler and agents in processes of their own, which come, are killed, and come back."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster_processes import Start, processes_in, start_scheduler, wait_until

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.measure.job import Timeouts
from wgtune.support.enums import TrialState
from wgtune.support.errors import DeviceError
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.fleet.dask_agent import resource_name
from wgtune.tuner.fleet.dask_client import Cluster, ClusterWorker
from wgtune.tuner.ir import Capture


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with processes_in(tmp_path) as start:
        yield start


@pytest.fixture
def scheduler(start: Start, tmp_path: Path) -> str:
    """The address of a scheduler."""
    return start_scheduler(start, tmp_path)


@pytest.fixture
def capture(demo_folder: Path, demo_cache: Path) -> Capture:
    """The demo model's text encoder, in the cache that tuners of the test use."""
    return capture_model(resolve_model(str(demo_folder)), stages=["clip"])


def tune_words(demo_folder: Path, capture: Capture, tmp_path: Path, scheduler: str, trials: int) -> list[str]:
    kernels = [word for kernel in list(capture.kernels.values())[:3] for word in ("--kernels", kernel.name)]
    database = ["--db", str(tmp_path / "tuned.db"), "--scheduler", scheduler, "--json"]
    return ["wgtune", "tune", "-m", str(demo_folder), "--stage", "clip", *kernels, "--trials", str(trials), *database]


def trials_ended(path: Path, device: Device, capture: Capture) -> Counter[TrialState]:
    if not path.is_file():
        return Counter()
    with Store.open(str(path)) as store:
        counts = store.counts(device.key, list(capture.kernels))
    return sum((Counter(states) for states in counts.values()), Counter())


def test_a_lost_agents_work_waits_for_the_next_one(
    start: Start, scheduler: str, device: Device, demo_folder: Path, capture: Capture, tmp_path: Path
) -> None:
    lend = ("wgtune", "agent", "--scheduler", scheduler, "--device", device.key)
    first = start("first", *lend, cache="agents")
    tuner = start("tuner", *tune_words(demo_folder, capture, tmp_path, scheduler, 8))
    database = tmp_path / "tuned.db"
    wait_until(lambda: trials_ended(database, device, capture)[TrialState.OK] >= 5, "five trials on the first agent")
    below = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    psutil.wait_procs(below, timeout=20)
    wait_until(
        lambda: "no agent lends it any more; waiting for it" in (tmp_path / "tuner.err").read_text(),
        "the tuner says that it waits",
    )
    assert tuner.poll() is None
    before = sum(trials_ended(database, device, capture).values())
    start("second", *lend, cache="agents")
    assert tuner.wait(150) == 0, (tmp_path / "tuner.err").read_text()
    states = trials_ended(database, device, capture)
    assert sum(states.values()) > before
    # The loss of an agent is no candidate's fault, and its work was not given up.
    assert not set(states) & {TrialState.RUN_ERROR, TrialState.DEVICE_LOST, TrialState.ABANDONED, TrialState.RUNNING}
    (outcome,) = json.loads((tmp_path / "tuner.out").read_text())
    assert outcome["summary"]["measured"] == 3 and outcome["restarts"] == 0
    with Store.open(str(database)) as store:
        (session,) = store.sessions()
        assert session.outcome is SessionOutcome.COMPLETED and session.info.device.key == device.key
    assert list((tmp_path / "agents" / "received-cases").glob("*.safetensors")), "cases travelled"
    assert "lent again" in (tmp_path / "tuner.err").read_text()


def test_two_agents_share_and_one_takes_over(
    start: Start, scheduler: str, device: Device, demo_folder: Path, capture: Capture, tmp_path: Path
) -> None:
    lend = ("wgtune", "agent", "--scheduler", scheduler, "--device", device.key)
    first, _ = start("first", *lend, cache="agent1"), start("second", *lend, cache="agent2")
    with Cluster(scheduler) as cluster:
        wait_until(lambda: len(cluster.list_devices().devices) == 2, "two agents")
        assert [d.index for d in cluster.list_devices().devices] == [0, 1]
        assert {resource_name(d) for d in cluster.list_devices().devices} == {resource_name(device)}
    tuner = start("tuner", *tune_words(demo_folder, capture, tmp_path, scheduler, 4))
    database = tmp_path / "tuned.db"
    wait_until(lambda: trials_ended(database, device, capture)[TrialState.OK] >= 3, "three trials")
    first.kill()
    assert tuner.wait(150) == 0, (tmp_path / "tuner.err").read_text()
    outcomes = json.loads((tmp_path / "tuner.out").read_text())
    assert [o["device"] for o in outcomes] == [f"{device.key} [0]", f"{device.key} [1]"]
    assert max(o["summary"]["measured"] for o in outcomes) == 3
    states = trials_ended(database, device, capture)
    assert not set(states) & {TrialState.RUN_ERROR, TrialState.DEVICE_LOST, TrialState.RUNNING}
    with Store.open(str(database)) as store:
        tried = [(k, t) for k in capture.kernels for t in store.tried(device.key, k)]
    searched = Counter((k, t.program_digest) for k, t in tried if t.program_digest and t.kind is TrialKind.SEARCH)
    assert searched and max(searched.values()) == 1, "the sessions share the kernels, they do not repeat each other"


def test_ctrl_c_leaves_the_agent_ready_for_the_next(
    start: Start, scheduler: str, device: Device, demo_folder: Path, capture: Capture, tmp_path: Path
) -> None:
    lender = start("agent", "wgtune", "agent", "--scheduler", scheduler, "--device", device.key)
    tuner = start("tuner", *tune_words(demo_folder, capture, tmp_path, scheduler, 200))
    database = tmp_path / "tuned.db"
    wait_until(lambda: trials_ended(database, device, capture)[TrialState.OK] >= 2, "two trials")
    tuner.send_signal(signal.SIGINT)
    assert tuner.wait(40) == 130, (tmp_path / "tuner.err").read_text()
    with Store.open(str(database)) as store:
        assert [record.outcome for record in store.sessions()] == [SessionOutcome.INTERRUPTED]
    worker = ClusterWorker(scheduler, device, Timeouts())
    assert worker.calibrate().flops_per_s > 0
    worker.close()
    below = psutil.Process(lender.pid).children(recursive=True)
    lender.send_signal(signal.SIGTERM)
    assert lender.wait(20) == 130
    assert psutil.wait_procs(below, timeout=20)[1] == []
    assert "joined" in (tmp_path / "agent.err").read_text()


def test_an_agent_waits_for_its_scheduler(start: Start, device: Device, tmp_path: Path) -> None:
    lender = start("agent", "wgtune", "agent", "--scheduler", "tcp://127.0.0.1:9", "--device", device.key)
    wait_until(lambda: "trying again" in (tmp_path / "agent.err").read_text(), "the agent says that it tries again")
    lender.send_signal(signal.SIGINT)
    assert lender.wait(20) == 130 and "Traceback" not in (tmp_path / "agent.err").read_text()


def test_what_is_not_there_is_said(scheduler: str) -> None:
    with pytest.raises(DeviceError, match="no Dask scheduler answers") as raised:
        Cluster("tcp://127.0.0.1:9")
    assert "dask scheduler" in raised.value.hint
    with Cluster(scheduler) as cluster, pytest.raises(DeviceError, match="no agent lends") as raised:
        cluster.wait_for_devices(0.1)
    assert f"wgtune agent --scheduler {scheduler}" in raised.value.hint
