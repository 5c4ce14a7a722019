"""Downloads that are cut, refused, changed under way or too large: whole and right, or an error that says why."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
from mirror_server import Web

from evalsuite.core.errors import EvalsuiteError, FetchError, MissingDataError
from evalsuite.fetch.download import ATTEMPTS, discard, download

BODY = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(900_000)
FILE = "/a.bin"
CAP = 2_000_000


def bring(web: Web, folder: Path) -> bytes:
    part = folder / "a.part"
    download(web.url + FILE, part, max_bytes=CAP)
    return part.read_bytes()


def first_byte(asked: tuple[str, str | None]) -> int:
    return int((asked[1] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def test_a_whole_file(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    seen: list[tuple[int, int | None]] = []
    download(web.url + FILE, tmp_path / "p", max_bytes=CAP, watch=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "p").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    discard(tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_cut_download_goes_on_where_it_was_cut(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    web.faults[FILE] = [-400_000, -300_000]
    assert bring(web, tmp_path) == BODY
    starts = [first_byte(asked) for asked in web.asked]
    assert starts[0] == 0
    assert 300_000 < starts[1] <= 400_000
    assert starts[1] < starts[2] <= 700_000
    assert len(starts) == 3


def test_a_part_of_an_earlier_run_is_gone_on_with(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    web.faults[FILE] = [-500_000, 403]
    with pytest.raises(FetchError, match="answers 403"):
        bring(web, tmp_path)
    assert bring(web, tmp_path) == BODY
    assert first_byte(web.asked[-1]) > 400_000


def test_a_part_that_is_whole_is_not_brought_again(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    bring(web, tmp_path)
    assert bring(web, tmp_path) == BODY
    assert first_byte(web.asked[-1]) == len(BODY)
    assert web.count(FILE) == 2


@pytest.mark.parametrize("kind", ["no ranges", "no tag", "another file", "shorter file", "wrong range"])
def test_what_cannot_be_gone_on_with_starts_anew(kind: str, web: Web, tmp_path: Path) -> None:
    web.files[FILE], expected = BODY, BODY
    web.faults[FILE] = [-500_000, 403]
    web.ranges, web.tags = kind != "no ranges", kind != "no tag"
    with pytest.raises(FetchError):
        bring(web, tmp_path)
    if kind in ("another file", "shorter file"):
        web.files[FILE] = expected = OTHER if kind == "another file" else OTHER[:1000]
    web.shift = 5 if kind == "wrong range" else 0
    assert bring(web, tmp_path) == expected


def test_a_part_longer_than_the_file_starts_anew(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    bring(web, tmp_path)
    with (tmp_path / "a.part").open("ab") as file:
        file.write(b"more")
    assert bring(web, tmp_path) == BODY


def test_a_busy_server_is_asked_again(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY
    web.faults[FILE] = [500, 503, 429]
    assert bring(web, tmp_path) == BODY


def test_progress_resets_the_count_of_failures(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = BODY * 12
    web.faults[FILE] = [-1_500_000] * (ATTEMPTS + 1)
    download(web.url + FILE, tmp_path / "a.part", max_bytes=20_000_000)
    assert (tmp_path / "a.part").read_bytes() == BODY * 12
    assert web.count(FILE) == ATTEMPTS + 2


@pytest.mark.parametrize(
    ("faults", "kind", "message", "requests"),
    [
        ([404], MissingDataError, "answers 404, expected the file: look for its new address", 1),
        ([410], MissingDataError, "answers 410", 1),
        ([403], FetchError, "answers 403, expected the file: check address and access rights", 1),
        ([500] * ATTEMPTS, FetchError, "answer 500, 5 times in a row; expected a file, 0 bytes of it", ATTEMPTS),
        ([-1] * ATTEMPTS, FetchError, "connection lost (ChunkedEncodingError), 5 times in a row", ATTEMPTS),
    ],
)  # fmt: skip
def test_refusals(
    faults: list[int], kind: type[EvalsuiteError], message: str, requests: int, web: Web, tmp_path: Path
) -> None:
    web.files[FILE], web.faults[FILE] = BODY, faults
    with pytest.raises(kind) as caught:
        bring(web, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert web.count(FILE) == requests


@pytest.mark.parametrize("lengths", [True, False])
def test_more_than_the_cap_is_refused_and_not_kept(lengths: bool, web: Web, tmp_path: Path) -> None:
    web.files[FILE], web.lengths = BODY * 3, lengths
    with pytest.raises(FetchError, match="expected at most 2000000"):
        bring(web, tmp_path)
    assert (tmp_path / "a.part").stat().st_size == 0


def test_nobody_listens(web: Web, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
        with pytest.raises(FetchError, match=r"connection lost \(ConnectionError\), 5 times in a row"):
            download(url, tmp_path / "a.part", max_bytes=CAP)


def test_no_address(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is no address"):
        download("htp://nowhere/a", tmp_path / "a.part", max_bytes=CAP)
