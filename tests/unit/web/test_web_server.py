"""`wgtune web`'s server: right types, nothing outside the bundle, errors in words."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgtune.support.errors import BundleError, UsageError
from wgtune.web import server
from wgtune.web.built_pages import app_dir
from wgtune.web.server import BundleServer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "kernels").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "index.html").write_text("own page")
    (folder / "kernels/a b.wgsl").write_text("fn")
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 9000)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture
def running(bundle: Path) -> Iterator[BundleServer]:
    with BundleServer(bundle) as made:
        yield made


def ask(
    running: BundleServer, target: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?x=1#y", "text/html; charset=utf-8"),
        ("/manifest.json", "application/json"),
        ("/kernels/a%20b.wgsl", "text/wgsl; charset=utf-8"),
        ("/weights.bin", "application/octet-stream"),
    ],
)
def test_files_and_types(running: BundleServer, bundle: Path, target: str, kind: str) -> None:
    response, body = ask(running, target)
    assert (response.status, response.headers["Content-Type"]) == (200, kind)
    assert len(body) == int(response.headers["Content-Length"])
    if target == "/weights.bin":
        assert body == (bundle / "weights.bin").read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/kernels/..%2f..%2fsecret.txt",
        "/link",
        "//etc/passwd",
        "/kernels",
        "/kernels/",
        "/nothing",
        "/%00",
        "/%ff",
    ],
)
def test_nothing_outside(running: BundleServer, target: str) -> None:
    response, body = ask(running, target)
    assert response.status == 404
    assert b"secret" not in body


def test_head_sends_no_body(running: BundleServer) -> None:
    response, body = ask(running, "/weights.bin", "HEAD")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", str(256 * 9000))


def test_changed_files_are_seen(running: BundleServer, bundle: Path) -> None:
    response, _ = ask(running, "/manifest.json")
    tag = response.headers["ETag"]
    assert response.headers["Cache-Control"] == "no-cache"
    again, body = ask(running, "/manifest.json", If_None_Match=tag)
    assert (again.status, body) == (304, b"")
    (bundle / "manifest.json").write_text("{ }")
    changed, body = ask(running, "/manifest.json", If_None_Match=tag)
    assert (changed.status, body) == (200, b"{ }")


def test_only_this_machine(running: BundleServer) -> None:
    assert running.url == f"http://127.0.0.1:{running.port}/"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in {*others, "127.0.0.2"}:
        with pytest.raises(OSError):
            socket.create_connection((str(address), running.port), timeout=5).close()


def test_page_of_the_package_where_the_bundle_has_none(bundle: Path) -> None:
    (bundle / "index.html").unlink()
    with BundleServer(bundle) as made:
        assert made.find("/") == app_dir().resolve() / "index.html"
        assert made.find("/manifest.json") == bundle / "manifest.json"


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle: it has no manifest"):
        BundleServer(tmp_path)


def test_page_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgtune.web.built_pages.__file__", str(tmp_path / "built_pages.py"))
    with pytest.raises(BundleError) as caught:
        app_dir()
    assert caught.value.hint == "type: make web"


def test_port_that_is_taken(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .* cannot be opened"):
            server.serve(bundle, port)
        # Nobody asked for this one, so any other will do.
        monkeypatch.setattr(server, "DEFAULT_PORT", port)
        monkeypatch.setattr(server, "_wait_for_interrupt", lambda: None)
        server.serve(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child process")
def test_prints_its_address_and_ends_on_ctrl_c(bundle: Path) -> None:
    program = f"from pathlib import Path; from wgtune.web.server import serve; serve(Path({str(bundle)!r}), 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"Serving {bundle} at http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, errors, out.strip()) == (0, "", "")


@pytest.mark.parametrize(("span", "start", "end"), [("5-9", 5, 10), ("2000000-", 2_000_000, None), ("-7", -7, None)])
def test_ranges(running: BundleServer, bundle: Path, span: str, start: int, end: int | None) -> None:
    response, body = ask(running, "/weights.bin", Range=f"bytes={span}")
    assert response.status == 206 and body == (bundle / "weights.bin").read_bytes()[start:end]


def test_only_reading(running: BundleServer) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert ask(running, "/manifest.json", method)[0].status == 405


def test_every_answer_says_its_type(running: BundleServer) -> None:
    for target in ("/", "/weights.bin"):
        assert ask(running, target)[0].headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one child process")
def test_a_browser_that_goes_away_ends_nothing_and_is_not_printed(bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes(bytes(64 << 20))
    program = f"from pathlib import Path; from wgtune.web.server import serve; serve(Path({str(bundle)!r}), 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET /weights.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert browser.recv(1000).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"nonsense\r\n\r\n")
        stranger.recv(1000)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/manifest.json")
    assert connection.getresponse().read() == b"{}"
    process.send_signal(signal.SIGINT)  # with the last connection open
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
