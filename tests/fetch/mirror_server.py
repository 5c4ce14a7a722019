"""A web server of a few files that can be told to fail, on this machine only."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served, how the next answers fail, and what was asked.

    Attributes:
        faults: per path, one per answer: a status, or minus the number of body bytes before the connection is cut.
        asked: path and ``Range`` header of every request.
        hold: set by the test to let an answer that is cut go on to its end first.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    tags: bool = True
    ranges: bool = True
    lengths: bool = True
    shift: int = 0
    held: dict[str, threading.Event] = field(default_factory=dict)
    reached: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            web.asked.append((self.path, self.headers["Range"]))
            faults = web.faults.get(self.path, [])
            fault = faults.pop(0) if faults else 0
            body = web.files.get(self.path)
            if fault > 0 or body is None:
                self.send_error(fault if fault > 0 else 404)
                return
            start = self._head(body)
            if start is None:
                return
            if self.path in web.held:
                self.wfile.write(body[start : len(body) // 2])
                self.wfile.flush()
                web.reached.set()
                web.held[self.path].wait()
                start = len(body) // 2
            if fault < 0:
                body = body[: start - fault]
            try:
                self.wfile.write(body[start:])
            except ConnectionError:
                return  # the client was killed

        def _head(self, body: bytes) -> int | None:
            """Send the headers; the first byte to send, None if there is none."""
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            wanted = self.headers["Range"]
            start = 0
            if web.ranges and wanted and self.headers["If-Range"] == tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return None
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start + web.shift}-{len(body) - 1}/{len(body)}")
            if web.lengths:
                self.send_header("Content-Length", str(len(body) - start))
            if web.tags:
                self.send_header("ETag", tag)
            self.end_headers()
            return start

    return Handler


@contextmanager
def served(web: Web) -> Iterator[Web]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(web))
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        for event in web.held.values():
            event.set()
        server.shutdown()
        server.server_close()
        thread.join()
