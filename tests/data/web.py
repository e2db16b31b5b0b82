"""A web server on the loopback that can misbehave: drop connections, ignore ranges, change files, answer with errors."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Served:
    """One file of the server.

    Attributes:
        ranges: honour the Range and If-Range headers.
        drops: bytes after which the next responses break off; each is used once, the last one for ever if `forever`.
        statuses: codes of the next responses, each used once, the last one for ever.
        headers: further headers of every response.
        sized: send Content-Length.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    forever: bool = False
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    sized: bool = True


@dataclass
class Web:
    """The server's files by path, and the requests (method, path, headers) that came."""

    port: int
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of each GET."""
        return [headers.get("Range") for method, _, headers in self.requests if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        web = self.server.web
        web.requests.append((self.command, self.path, dict(self.headers)))
        served = web.files.get(self.path)
        if served is None:
            return self._refuse(404)
        if served.statuses:
            code = served.statuses[0] if len(served.statuses) == 1 else served.statuses.pop(0)
            if code != 200:
                return self._refuse(code)
        start, total = self._start(served), len(served.content)
        if start > total:
            return self._refuse(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.sized:
            self.send_header("Content-Length", str(total - start))
        if served.etag:
            self.send_header("ETag", served.etag)
        for name, value in served.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self._send(served, served.content[start:])
        return None

    def _start(self, served):
        asked = self.headers.get("Range")
        if not asked or not served.ranges or self.headers.get("If-Range") not in (None, served.etag):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _send(self, served, content):
        if not served.drops:
            self.wfile.write(content)
            return
        stop = served.drops[0] if served.forever and len(served.drops) == 1 else served.drops.pop(0)
        self.wfile.write(content[:stop])
        self.wfile.flush()
        if stop < len(content):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    web: Web


@contextmanager
def serve() -> Iterator[Web]:
    """Run a server as long as the context lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.web = Web(server.server_port)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
