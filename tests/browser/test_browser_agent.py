"""An agent of a Dask cluster that lends a browser: a phone beside another machine, for `wgtune tune --scheduler`."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_processes import Start, processes_in, start_scheduler, wait_until
from lending import lend
from playwright.sync_api import Browser

from wgtune.database.schema.records import SessionOutcome
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState

CHROMIUM = "browser:chrome-google-swiftshader"


@pytest.fixture
def start(demo_cache: Path, tmp_path: Path) -> Iterator[Start]:
    with processes_in(tmp_path) as start:
        yield start


def test_a_browser_is_lent_on_while_its_page_is_there(
    start: Start, browser: Browser, demo_folder: Path, tmp_path: Path
) -> None:
    scheduler = start_scheduler(start, tmp_path)
    lender = start("agent", "wgtune", "agent", "--scheduler", scheduler, "--device", "browser", "--port", "0")

    def said(who: str) -> str:
        return (tmp_path / f"{who}.err").read_text()

    def address(count: int) -> str:
        found: list[str] = []

        def there() -> bool:
            found[:] = re.findall(r"open (http://\S+) in", said("agent"))
            return len(found) >= count

        wait_until(there, f"address number {count}")
        return found[-1]

    page = lend(browser, address(1))
    wait_until(lambda: f"joined {scheduler} with {CHROMIUM}" in said("agent"), "the browser joins the cluster")
    words = ["-m", str(demo_folder), "--stage", "clip", "--kernels", "matmul_add*", "--trials", "3"]
    database = str(tmp_path / "tuned.db")
    tuner = start("tuner", "wgtune", "tune", *words, "--scheduler", scheduler, "--db", database, "--json")
    wait_until(lambda: f"{CHROMIUM}: session" in said("tuner"), "a session begins on the browser")
    page.close()
    wait_until(lambda: "no agent lends it any more; waiting for it" in said("tuner"), "the tuner waits")
    assert f"{CHROMIUM}: the page was closed" in said("agent") and tuner.poll() is None
    page = lend(browser, address(2))
    assert tuner.wait(120) == 0, said("tuner")
    assert "lent again" in said("tuner")
    (outcome,) = json.loads((tmp_path / "tuner.out").read_text())
    assert outcome["device"] == CHROMIUM and outcome["summary"]["outcome"] == "completed"
    with Store.open(database) as store:
        (session,) = store.sessions()
        assert session.info.runtime is Runtime.BROWSER and session.outcome is SessionOutcome.COMPLETED
        kernels = [kernel.workload_id for kernel in store.model_kernels(session.info.capture_key)]
        states = {state for counts in store.counts(CHROMIUM, kernels, Runtime.BROWSER).values() for state in counts}
        assert TrialState.OK in states and not states & {TrialState.DEVICE_LOST, TrialState.ABANDONED}
    lender.send_signal(signal.SIGTERM)
    assert lender.wait(20) == 130 and "Traceback" not in said("agent")
    page.wait_for_function("document.getElementById('status').textContent.includes('ended')")
    page.close()
