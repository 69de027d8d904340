"""The server that bundles and the measuring page share: ports, messages from other threads, and its end."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest
from tornado.web import Application, RequestHandler

from wgtune.support.errors import UsageError
from wgtune.web.http_server import HOST, HttpServer


class Hello(RequestHandler):
    def get(self) -> None:
        self.finish("hello")


def started(server: HttpServer) -> HttpServer:
    server.start(Application([("/", Hello)], log_function=lambda handler: None))
    return server


def test_it_serves_until_it_is_closed() -> None:
    server = started(HttpServer(HOST, 0, 1))
    url = f"http://{HOST}:{server.port}/"
    assert urllib.request.urlopen(url, timeout=10).read() == b"hello"
    with socket.create_connection((HOST, server.port), timeout=10) as idle:
        server.close()
        assert idle.recv(1) == b"", "open connections are closed"
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=10)
    server.close()


def test_a_port_that_is_closed_without_serving_is_free_again() -> None:
    server = HttpServer(HOST, 0, 1)
    server.close()
    again = HttpServer(HOST, server.port, 1)
    assert again.port == server.port
    again.close()


def test_a_default_port_that_is_taken_is_replaced_and_one_that_was_asked_for_is_not() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HttpServer(HOST, None, port)
        assert server.port != port
        server.close()
        with pytest.raises(UsageError, match=f"port {port} on {HOST} cannot be opened") as refused:
            HttpServer(HOST, port, 1)
        assert "--port" in refused.value.hint


def test_calls_run_in_its_thread_and_are_dropped_after_the_end() -> None:
    server = started(HttpServer(HOST, 0, 1))
    names: list[str] = []
    called = threading.Event()

    def note() -> None:
        names.append(threading.current_thread().name)
        called.set()

    server.call_soon(note)
    assert called.wait(10) and names == ["http-server"]
    server.close()
    server.call_soon(lambda: names.append("late"))
    assert names == ["http-server"]


def test_what_is_said_at_the_end_is_still_done() -> None:
    server = started(HttpServer(HOST, 0, 1))
    said: list[str] = []
    server.call_soon(lambda: said.append("farewell"))
    server.close(linger_s=0.1)
    assert said == ["farewell"]
