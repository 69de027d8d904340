"""`wgtune tune --device browser` from end to end, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from lending import lend
from playwright.sync_api import Browser

from wgtune.database.store import Store
from wgtune.states import Runtime


def test_a_demo_kernel_is_tuned_in_chromium(browser: Browser, demo_folder: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "x.db")
    words = ["--model", str(demo_folder), "--stage", "clip", "--kernels", "matmul_add*", "--trials", "2"]
    command = [sys.executable, "-m", "wgtune", "tune", *words, "--device", "browser", "--port", "0", "--json"]
    tuner = subprocess.Popen([*command, "--db", database], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tuner.stderr is not None
    address = re.search(r"http://\S+", tuner.stderr.readline())
    assert address is not None
    page = lend(browser, address[0])
    output, errors = tuner.communicate(timeout=120)
    assert tuner.returncode == 0, errors
    ((summary, device),) = [(one["summary"], one["device"]) for one in json.loads(output)]
    assert device == "browser:chrome-google-swiftshader"
    assert summary["outcome"] == "completed" and summary["measured"] == summary["kernels"] >= 1
    page.wait_for_function("document.getElementById('status').textContent.includes('ended')")
    page.close()
    with Store.open(database) as store:
        (session,) = store.sessions()
        assert session.info.runtime is Runtime.BROWSER and session.info.driver.startswith("chrome ")
        key = session.info.device.key
        assert key == "browser:chrome-google-swiftshader"
        ids = [kernel.workload_id for kernel in store.model_kernels(session.info.capture_key)]
        best = store.best(key, ids, Runtime.BROWSER)
        assert len(best) == summary["kernels"] and all(record.timer == "timestamp" for record in best.values())
