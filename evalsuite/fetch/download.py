"""The only code of evalsuite that opens a connection: one file over HTTP, retried, and gone on with where it was cut.

`pooch` moves the bytes. It starts anew after every cut, so a hook on its response adds what a resume needs: the part
is appended to only if the server says that the rest is of the same file (``If-Range``) and starts where the part ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import requests
from pooch import HTTPDownloader

from evalsuite.core.errors import FetchError, MissingDataError

ATTEMPTS = 5
"""In a row without `PROGRESS_BYTES` more of the file."""

PROGRESS_BYTES = 1 << 20

BACKOFF_SECONDS = 1.0
"""Before the second attempt; doubles with each further one."""

TIMEOUT_SECONDS = 60

_CHUNK_BYTES = 1 << 16
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_GONE = (404, 410)
_PAST_THE_END = 416
_NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema)

Watch = Callable[[int, int | None], None]
"""Told the bytes so far and, where the server says, in all."""


def download(url: str, part: Path, *, max_bytes: int, watch: Watch = lambda done, total: None) -> None:
    """Bring a file; what an earlier attempt left at ``part`` is gone on with, also one of another process, now dead.

    Args:
        url: ``http://`` or ``https://``.
        part: where the bytes go; beside it, ``<part>.tag`` names the version of the file they are of. Whole when this
            returns, never before; a part that is whole already costs one request. `discard` removes both.
        max_bytes: cap on its size.

    Raises:
        MissingDataError: the server does not have it (404, 410).
        FetchError: the server cannot be reached, refuses, cuts too often, or the file is larger than the cap.
    """
    failures, have = 0, _size(part)
    while True:
        try:
            _transfer(url, part, max_bytes, watch)
            return
        except requests.RequestException as error:
            if _is_whole(error, part):
                return
            reason = _reason(url, error, part)
        failures = 1 if _size(part) - have >= PROGRESS_BYTES else failures + 1
        have = _size(part)
        if failures == ATTEMPTS:
            raise FetchError(
                f"{url}: {reason}, {ATTEMPTS} times in a row; expected a file, {have} bytes of it are kept: check the "
                "network, then run the same command again to go on from there"
            )
        time.sleep(BACKOFF_SECONDS * 2 ** (failures - 1))


def discard(part: Path) -> None:
    """Remove a part and its tag, if they are there."""
    for path in (part, _tag(part)):
        path.unlink(missing_ok=True)


def _is_whole(error: requests.RequestException, part: Path) -> bool:
    """Whether the server, asked for the rest, answered that the very same file ends where the part does."""
    answer = error.response
    if answer is None or answer.status_code != _PAST_THE_END:
        return False
    return answer.headers.get("Content-Range") == f"bytes */{_size(part)}"


def _reason(url: str, error: requests.RequestException, part: Path) -> str:
    """Why an attempt failed, if another one may do better; else raises."""
    if isinstance(error, _NO_ADDRESS):
        raise FetchError(f"{url} is no address ({error}); expected http://... or https://...: correct it") from error
    if error.response is None:
        return f"connection lost ({type(error).__name__})"
    code = error.response.status_code
    if code in _GONE:
        discard(part)
        raise MissingDataError(
            f"{url} answers {code}, expected the file: look for its new address on the publisher's page"
        ) from error
    if code == _PAST_THE_END:
        discard(part)  # longer than the file: of another one
    elif code not in _BUSY:
        raise FetchError(f"{url} answers {code}, expected the file: check address and access rights") from error
    return f"answer {code}"


def _transfer(url: str, part: Path, max_bytes: int, watch: Watch) -> None:
    have = _size(part)
    tag = _tag(part).read_text(encoding="ascii") if have and _tag(part).is_file() else ""
    headers = {"Accept-Encoding": "identity"}
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with part.open("ab") as file:
        sink = _Sink(url, file, _tag(part), max_bytes, watch)
        bring = HTTPDownloader(
            headers=headers, timeout=TIMEOUT_SECONDS, chunk_size=_CHUNK_BYTES, hooks={"response": sink.begin}
        )
        try:
            bring(url, sink, None)
        finally:
            sink.close()


class _Sink:
    """The part file as pooch sees it: append, or start anew where the server sends the whole file."""

    def __init__(self, url: str, file: IO[bytes], tag: Path, max_bytes: int, watch: Watch) -> None:
        self.url, self.file, self.tag, self.max_bytes, self.watch = url, file, tag, max_bytes, watch
        self.total: int | None = None
        self.response: requests.Response | None = None

    def begin(self, response: requests.Response, **_: Any) -> None:
        """Called with every response, redirects too, before its body is read."""
        self.response = response
        have = self.file.seek(0, 2)
        if response.status_code == 200:
            self.file.truncate(0)
            have = 0
            self.tag.write_text(_validator(response), encoding="ascii")
        elif response.status_code == 206:
            start = response.headers.get("Content-Range", "")
            if not start.startswith(f"bytes {have}-"):
                self.tag.unlink(missing_ok=True)  # the next attempt starts anew
                raise requests.ConnectionError(f"asked for bytes from {have}, got {start!r}")
        else:
            return
        length = response.headers.get("Content-Length", "")
        self.total = have + int(length) if length.isdecimal() else None
        self._cap(self.total or 0)

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self._cap(self.file.tell())
        self.watch(self.file.tell(), self.total)

    def flush(self) -> None:
        """Left to the file itself: pooch asks for it after every chunk."""

    def close(self) -> None:
        """Close the connection, which pooch leaves open after an error."""
        if self.response is not None:
            self.response.close()

    def _cap(self, size: int) -> None:
        if size > self.max_bytes:
            self.file.truncate(0)
            raise FetchError(
                f"{self.url} sends {size} bytes or more, expected at most {self.max_bytes}: is the address right? "
                "If the publisher's file has grown, raise max_bytes in the manifest"
            )


def _validator(response: requests.Response) -> str:
    """What names this very version of the file; a weak ETag does not."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag if tag.isascii() else ""
    return response.headers.get("Last-Modified", "")


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
