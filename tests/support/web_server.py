"""A small web server for tests: routes to functions, and what was asked of it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    port: int
    asked: list[Asked] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    release: threading.Event = field(default_factory=threading.Event)
    """What hangs goes on once this is set."""
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when a client has gone away from something that hangs."""

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pie: WebServer

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.pie.asked.append(Asked(self.command, self.path, headers, self.rfile.read(length)))
        self.pie.connections.add(self.client_address)
        what, _, rest = self.path.lstrip("/").partition("/")
        getattr(self, f"on_{what or 'hello'}")(rest)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def on_hello(self, _: str) -> None:
        self.answer(200, b'{"hello": "world"}', content_type="application/json", Set_Cookie="a=b")

    def on_status(self, status: str) -> None:
        self.answer(int(status), b"so it is")

    def on_size(self, size: str) -> None:
        self.answer(200, b"x" * int(size))

    def on_to(self, url: str) -> None:
        self.answer(302, b"elsewhere", location=url)

    def on_keep(self, url: str) -> None:
        self.answer(307, location=url)

    def on_round(self, _: str) -> None:
        self.answer(302, location=self.path + "x")

    def on_endless(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.pie.release.is_set():
                self.wfile.write(b"x" * 4096)
        except OSError:
            self.pie.hung_up.set()
        self.close_connection = True

    def on_hang(self, _: str) -> None:
        self.connection.settimeout(0.01)
        while not self.pie.release.is_set():
            try:
                if self.connection.recv(1) == b"":
                    self.pie.hung_up.set()
                    break
            except TimeoutError:
                time.sleep(0.01)
        self.close_connection = True

    def on_nonsense(self, _: str) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    handler = type("Made", (Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    pie = handler.pie = WebServer(server.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield pie
    finally:
        pie.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
