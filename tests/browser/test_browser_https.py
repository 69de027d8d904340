"""The page that lends, seen from other machines: WebGPU is there over https, and over plain http it is not."""

from __future__ import annotations

import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lending import start_another
from playwright.sync_api import Browser, Page
from safetensors.numpy import save_file
from sample_programs import DOUBLING, SIZE, job

from wgtune.devices.browser.server import BrowserServer, advice
from wgtune.devices.browser.worker import BrowserWorker
from wgtune.devices.measure.job import Timeouts
from wgtune.support.enums import TrialState
from wgtune.support.errors import UsageError
from wgtune.web.built_pages import lender_dir

NAME = "tuner.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody trusts, and its private key."""
    folder = tmp_path_factory.mktemp("certificate")
    files = folder / "cert.pem", folder / "key.pem"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
    subprocess.run(["openssl", "req", *words, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def elsewhere(browser: Browser) -> Iterator[Page]:
    """A page of a browser that takes this machine for another one, and trusts whatever certificate it has."""
    other = start_another(browser, [f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--ignore-certificate-errors"])
    yield other.new_page()
    other.close()


def test_a_certificate_lets_other_machines_lend(
    certificate: tuple[Path, Path], elsewhere: Page, tmp_path: Path
) -> None:
    with BrowserServer(lender_dir(), print, "127.0.0.1", 0, *certificate) as server:
        assert server.registry.address.startswith("https://") and not server.advice
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(server.registry.address, context=ssl.create_default_context())
        elsewhere.goto(server.registry.address.replace("127.0.0.1", NAME))
        elsewhere.wait_for_function("document.getElementById('status').textContent.includes('lent')")
        assert elsewhere.evaluate("isSecureContext")
        x = np.linspace(-1, 1, SIZE, dtype=np.float32)
        save_file({"arg0": x, "expected1": 2 * x}, tmp_path / "case.safetensors")
        worker = BrowserWorker(server.registry.wait_for_first(), Timeouts(compile_s=20, run_s=15))
        assert worker.measure(job(DOUBLING, tmp_path / "case.safetensors")).state is TrialState.OK


def test_over_plain_http_both_ends_say_what_is_missing(elsewhere: Page) -> None:
    assert "--certificate" in advice("0.0.0.0", 8765) and "ssh -L 8765:127.0.0.1:8765" in advice("0.0.0.0", 8765)
    with BrowserServer(lender_dir(), print, "127.0.0.1", 0) as server:
        assert not server.advice
        port = server.registry.address.split(":")[2].split("/")[0]
        elsewhere.goto(f"http://{NAME}:{port}/{server.registry.address.split('/')[3]}")
        elsewhere.wait_for_function("document.getElementById('status').textContent.includes('cannot lend')")
        assert "plain HTTP" in elsewhere.inner_text("#status") and not server.registry.browsers()


def test_a_key_alone_or_one_that_does_not_fit_is_refused(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="goes with --certificate"):
        BrowserServer(lender_dir(), print, "127.0.0.1", 0, None, certificate[1])
    with pytest.raises(UsageError, match="cannot be used"):
        BrowserServer(lender_dir(), print, "127.0.0.1", 0, certificate[0], None)
