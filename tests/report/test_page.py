"""The page: complete, escaped, self-contained, and built without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from report_factories import expected_cases, record, scene_records, study, write_store

from evalsuite.core.errors import MissingDataError, NotComparableError
from evalsuite.records.schema import Record
from evalsuite.report.page import write_page

VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Collects attributes and text, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> Iterator[str]:
        return (found for _, attributes in self.tags if (found := attributes.get(attribute)) is not None)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader


def with_images(records: list[Record]) -> list[Record]:
    return [replace(found, images=(f"{found.case}.png",)) for found in records]


def test_page_module_needs_no_torch_and_no_pyplot() -> None:
    code = "import sys, evalsuite.report.page; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_whole_study_is_on_the_page_and_every_link_is_a_file_beside_it(tmp_path: Path) -> None:
    strata = {"s.one": "thin", "s.two": "blocky", "s.three": "organic"}
    write_store(tmp_path / "store", with_images(study(strata)))
    (tmp_path / "store/s.one/b-capture-n200.ply").write_bytes(b"ply\n")
    page = write_page(tmp_path / "store", tmp_path / "out", [c for s in strata for c in expected_cases(s)], 7200.0)
    assert page == tmp_path / "out/index.html"
    moved = tmp_path / "elsewhere"
    page.parent.rename(moved)
    reader = read(moved / "index.html")
    addresses = {*reader.values("src"), *reader.values("href")}
    assert all((moved / unquote(a)).is_file() for a in addresses if not a.startswith("#"))
    assert not any(":" in a or a.startswith(("/", "..")) for a in addresses)
    assert "files/s.one/b-capture-n200.ply" in addresses
    assert {f"files/{case}.png" for scene in strata for case in expected_cases(scene)} <= addresses
    assert {"files/s.two/truth.png", "psnr-steps-capture-objects.png", "psnr-seconds-inputs-objects.png"} <= addresses
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")
    assert not any(tag == "script" for tag, _ in reader.tags)
    for fact in ("57 cases: 57 ok", "9.40 dB", "-2.10 dB", "3.62 dB / 1,000 steps", "B warm start, N = 1,000"):
        assert fact in " ".join(reader.text.split())
    for provenance in ("object-128 0123456789ab", "3dgs fedcba987654", "Testium 9", "torch 2.11.0", "c0ffee", "2 h"):
        assert provenance in reader.text
    assert "Not run" not in reader.text


def test_missing_and_failed_cases_are_listed(tmp_path: Path) -> None:
    records = [r for r in scene_records("s.one") if r.case not in ("s.one/c-capture-n3000", "s.one/b-inputs-n50")]
    failed = record("s.one", "c", "capture", 3000, None, status="oom", reason="24 GiB asked")
    write_store(tmp_path / "store", [*records, failed])
    expected = [*expected_cases("s.one"), "s.room/a"]
    text = " ".join(read(write_page(tmp_path / "store", tmp_path / "out", expected)).text.split())
    assert "20 cases: 17 ok, 1 failed, 2 not run" in text
    assert "Not run: 2 of 20 cases s.one/b-inputs-n50s.room/a" in text
    assert "s.one/c-capture-n3000: oom, 24 GiB asked" in text
    assert "1 scene without any record, so of no stratum here: s.room." in text
    assert "no scene has both A and C at N = 3,000" in text
    assert "no image in the store: s.one: true held-out views" not in text
    assert "no image in the store: s.room: true held-out views" in text


def test_what_a_case_took_is_told_in_full(tmp_path: Path) -> None:
    taken = record("s.one", "a", seconds={"load": 9.0, "forward": 0.25}, peak_host_bytes=800_000_000)
    taken = replace(taken, peak_device_bytes=0, frames_per_second=450.4, frame_px=(128, 96))
    write_store(tmp_path / "store", [taken])
    text = " ".join(read(write_page(tmp_path / "store", tmp_path / "out", [])).text.split())
    for fact in ("seconds, load", "9.00 (not in the cost)", "seconds, forward", "peak host memory, MB", "128 x 96"):
        assert fact in text
    assert "device memory" not in text


def test_records_that_are_not_asked_for_stay_out(tmp_path: Path) -> None:
    """The records of a noise run may be of older code, which is no reason to show nothing."""
    records = scene_records("s.one")
    older = replace(records[-1], case=f"{records[-1].case}-s1", seed=1, recipe_hash="0" * 12)
    write_store(tmp_path / "store", [*records, older])
    text = read(write_page(tmp_path / "store", tmp_path / "out", expected_cases("s.one"))).text
    assert "19 cases: 19 ok" in " ".join(text.split())
    assert older.case not in text


def test_text_of_records_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>&"
    found = record(psnr=None, status="crashed", reason=hostile, notes=(hostile,), suite=hostile)
    write_store(tmp_path / "store", [replace(found, machine={"cpu": hostile}, git={"commit": hostile})])
    page = write_page(tmp_path / "store", tmp_path / "out", [])
    assert "<script" not in page.read_text(encoding="utf-8")
    assert read(page).text.count(hostile) >= 4


@pytest.mark.parametrize("image", ["../secret.png", "s.one/../../secret.png", "/etc/hostname", "s.one/gone.png"])
def test_an_image_outside_the_store_is_neither_copied_nor_linked(tmp_path: Path, image: str) -> None:
    write_store(tmp_path / "store", [record("s.one")])
    (tmp_path / "secret.png").write_bytes(b"secret")
    store_record = record("s.one", images=(image,))
    (tmp_path / "store/s.one/a.json").write_text(store_record.dumps(), encoding="utf-8")
    reader = read(write_page(tmp_path / "store", tmp_path / "out", []))
    assert image not in {*reader.values("src"), *reader.values("href")}
    assert "no image in the store: s.one: held-out views rendered by A feed-forward" in reader.text
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"index.html", "truth.png"}


def test_what_weakens_a_comparison_is_said(tmp_path: Path) -> None:
    other = record("s.two", machine={"device_class": "cuda-sm90"}, git={"commit": "beef", "dirty": True})
    write_store(tmp_path / "store", [record("s.one"), other])
    text = read(write_page(tmp_path / "store", tmp_path / "out", [])).text
    assert "Timed on 2 kinds of machine" in text
    assert "uncommitted changes" in text
    assert "Records come from 2 commits." in text
    assert "No checkpoint of C has been recorded" in text


def test_seconds_of_a_busy_machine_are_marked(tmp_path: Path) -> None:
    records = study({"s.one": "thin", "s.two": "thin"})
    slow = [
        replace(found, anchor_share=0.5)
        if (found.scene, found.arm, found.budget) == ("s.two", "b", "capture")
        else found
        for found in records
    ]
    write_store(tmp_path / "sound", records)
    assert "~" not in read(write_page(tmp_path / "sound", tmp_path / "page", [])).text
    write_store(tmp_path / "busy", slow)
    text = read(write_page(tmp_path / "busy", tmp_path / "out", [])).text
    assert f"~ marks seconds taken on a busy machine, in 4 of {len(records)} cases" in text
    assert "~11.0" in text, "the case at N = 200"
    assert "which saves" in text
    assert " s [" not in text.split("which saves")[1].split("~")[0], "the headline's seconds"


def test_b_that_never_reaches_c_is_said_so(tmp_path: Path) -> None:
    records = [record("s.one"), record("s.one", "b", "capture", 50, 25.0), record("s.one", "c", "capture", 50, 30.0)]
    write_store(tmp_path / "store", records)
    text = read(write_page(tmp_path / "store", tmp_path / "out", [])).text
    assert "not reached" in text
    assert "B reaches C's PSNR at N = 50 in 0 of 1 scene." in text


def test_nothing_to_show_and_mixed_protocols_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no records"):
        write_page(tmp_path / "store", tmp_path / "out", [])
    assert "Not run: 1 of 1 cases" in read(write_page(tmp_path / "store", tmp_path / "out", ["s.one/a"])).text
    write_store(tmp_path / "store", [record("s.one"), record("s.two", protocol_hash="other")])
    with pytest.raises(NotComparableError, match="protocol"):
        write_page(tmp_path / "store", tmp_path / "out", [])
