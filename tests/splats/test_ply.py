"""The 3DGS PLY: what is written, what comes back, what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat.exporter import export_splats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalsuite.core.conventions import look_at
from evalsuite.core.errors import BadDataError, EvalsuiteError, MissingDataError, NonFiniteError, ShapeError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.ply import load_ply, save_ply
from evalsuite.splats.rasterise import rasterise

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def cloud(seed: int = 0, count: int = 40, degree: int = 0) -> Gaussians:
    """Random Gaussians; the first ones sit on the edges of what a logit and a logarithm can hold."""
    draw = torch.Generator().manual_seed(seed)
    opacities = torch.rand(count, generator=draw)
    scales = 0.01 + 0.2 * torch.rand(count, 3, generator=draw)
    edges = torch.tensor([0.0, 1.0, 1e-7, 1 - 6e-8, 1e-30])[:count]
    opacities[: len(edges)] = edges
    scales[2:3] = 0.0
    return Gaussians(
        0.4 * torch.randn(count, 3, generator=draw),
        torch.randn(count, 4, generator=draw),
        scales,
        opacities,
        0.3 * torch.randn(count, (degree + 1) ** 2, 3, generator=draw),
    )


def header_of(path: Path) -> list[str]:
    """Lines of the header, ``end_header`` included."""
    text = path.read_bytes()
    return text[: text.index(b"end_header\n") + 10].decode("ascii").splitlines()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), count=st.integers(0, 50), degree=st.integers(0, 3))
def test_round_trip(seed: int, count: int, degree: int, tmp_path: Path) -> None:
    sent = cloud(seed, count, degree)
    save_ply(sent, tmp_path / "a.ply")
    back = load_ply(tmp_path / "a.ply")
    assert back.sh_degree == degree
    for name in ("means", "quats", "sh"):
        assert torch.equal(getattr(back, name), getattr(sent, name)), name
    torch.testing.assert_close(back.scales, sent.scales, rtol=2e-6, atol=0)
    torch.testing.assert_close(back.opacities, sent.opacities, rtol=3e-6, atol=1e-12)
    assert torch.equal(back.opacities == 0, sent.opacities < 9e-14)
    save_ply(back, tmp_path / "b.ply")
    again = load_ply(tmp_path / "b.ply")
    torch.testing.assert_close(again.opacities, back.opacities, rtol=3e-6, atol=0)


def test_zero_and_one_survive_exactly(tmp_path: Path) -> None:
    sent = cloud()
    save_ply(sent, tmp_path / "a.ply")
    back = load_ply(tmp_path / "a.ply")
    assert back.opacities[:2].tolist() == [0.0, 1.0]
    assert back.scales[2].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("degree", [0, 3])
def test_round_trip_renders_the_same(degree: int, tmp_path: Path) -> None:
    sent = cloud(5, 80, degree)
    poses = torch.stack([look_at(torch.tensor([0.0, 0.3, 1.5])), look_at(torch.tensor([1.5, 0.0, 0.2]))])
    cameras = Cameras(poses, torch.full((2, 2), 40.0), torch.full((2, 2), 16.0), 32, 32)
    save_ply(sent, tmp_path / "a.ply")
    before, after = (rasterise(g, cameras, torch.ones(3)) for g in (sent, load_ply(tmp_path / "a.ply")))
    assert before.alpha.max() > 0.5
    torch.testing.assert_close(after.rgb, before.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(after.alpha, before.alpha, atol=1e-5, rtol=0)


def test_layout_is_that_of_3dgs(tmp_path: Path) -> None:
    sent = cloud(degree=1)
    save_ply(sent, tmp_path / "a.ply")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    lines = header_of(tmp_path / "a.ply")
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 40"]
    assert lines[3:] == [*(f"property float {name}" for name in names), "end_header"]
    raw = (tmp_path / "a.ply").read_bytes()
    table = np.frombuffer(raw, [(name, "<f4") for name in names], offset=raw.index(b"end_header\n") + 11)
    assert len(table) == 40
    assert table["f_rest_0"][7] == sent.sh[7, 1, 0]  # channel-major: red's three, green's three, blue's three
    assert table["f_rest_1"][7] == sent.sh[7, 2, 0]
    assert table["f_rest_3"][7] == sent.sh[7, 1, 1]
    assert table["rot_0"][7] == sent.quats[7, 0]
    assert np.exp(table["scale_1"][7]) == pytest.approx(float(sent.scales[7, 1]), rel=1e-6)
    assert 1 / (1 + np.exp(-table["opacity"][7])) == pytest.approx(float(sent.opacities[7]), rel=1e-6)
    assert not table["nx"].any()
    assert np.isfinite(np.array(table.tolist())).all()


def test_reads_other_orders_types_and_extras(tmp_path: Path) -> None:
    """What other exporters write: no normals, doubles, colours, comments, a face element behind."""
    sent = cloud(3, 6)
    names = [
        "opacity",
        "rot_3",
        "rot_2",
        "rot_1",
        "rot_0",
        "scale_2",
        "scale_1",
        "scale_0",
        "f_dc_2",
        "f_dc_1",
        "f_dc_0",
    ]
    columns = [("red", "u1"), *((name, "<f8") for name in names), ("z", "<f4"), ("y", "<f4"), ("x", "<f4")]
    table = np.zeros(6, columns)
    for axis, name in enumerate("xyz"):
        table[name] = sent.means[:, axis]
    for i in range(4):
        table[f"rot_{i}"] = sent.quats[:, i]
    for i in range(3):
        table[f"f_dc_{i}"] = sent.sh[:, 0, i]
    kinds = {"u1": "uchar", "<f8": "double", "<f4": "float"}
    lines = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", "element vertex 6"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in columns]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    path = tmp_path / "a.ply"
    path.write_bytes("\n".join(lines).encode() + table.tobytes() + bytes(13))
    back = load_ply(path)
    assert torch.equal(back.means, sent.means)
    assert torch.equal(back.quats, sent.quats)
    assert torch.equal(back.sh, sent.sh)
    assert back.opacities.tolist() == [0.5] * 6
    assert (back.scales == 1).all()


def _rewritten(path: Path, form: str) -> bytes:
    """A PLY that `save_ply` wrote, in another form with the same values."""
    lines, body = header_of(path), path.read_bytes().split(b"end_header\n", 1)[1]
    table = np.frombuffer(body, "<f4").reshape(-1, len(lines) - 4)
    if form == "ascii":
        lines[1], body = "format ascii 1.0", "\n".join(" ".join(map(repr, row)) for row in table.tolist()).encode()
    elif form == "big endian":
        lines[1], body = "format binary_big_endian 1.0", table.astype(">f4").tobytes()
    elif form == "element before":
        lines[2:2] = ["element camera 2", "property float far", "property uchar kind"]
        body = bytes(10) + body
    elif form == "ascii, element before":
        lines[1:2] = ["format ascii 1.0", "element camera 2", "property float far"]
        body = ("1\n2\n" + "\n".join(" ".join(map(repr, row)) for row in table.tolist())).encode()
    elif form == "comments":
        lines[2:2] = ["comment Generated by someone", "comment", "obj_info num_cols 3"]
    end = {"CRLF": "\r\n", "CR": "\r"}.get(form, "\n")
    return (end.join(lines) + end).encode() + body


@pytest.mark.parametrize(
    "form", ["CRLF", "CR", "ascii", "big endian", "element before", "ascii, element before", "comments"]
)
def test_reads_other_forms_of_the_same_file(form: str, tmp_path: Path) -> None:
    save_ply(cloud(7, 12, 1), tmp_path / "a.ply")
    (tmp_path / "b.ply").write_bytes(_rewritten(tmp_path / "a.ply", form))
    assert (tmp_path / "b.ply").read_bytes() != (tmp_path / "a.ply").read_bytes()
    sent, back = load_ply(tmp_path / "a.ply"), load_ply(tmp_path / "b.ply")
    for name in FIELDS:
        assert torch.equal(getattr(back, name), getattr(sent, name)), name


def test_a_cut_text_file_is_truncated(tmp_path: Path) -> None:
    save_ply(cloud(7, 12, 1), tmp_path / "a.ply")
    text = _rewritten(tmp_path / "a.ply", "ascii")
    (tmp_path / "b.ply").write_bytes(b"\n".join(text.split(b"\n")[:-3]))
    with pytest.raises(BadDataError, match="9 lines of vertices, its header promises 12"):
        load_ply(tmp_path / "b.ply")
    (tmp_path / "b.ply").write_bytes(text[:-60])
    with pytest.raises(BadDataError, match="does not fit its header"):
        load_ply(tmp_path / "b.ply")


def test_reads_what_gsplat_writes(tmp_path: Path) -> None:
    sent = cloud(4, 20, 3)
    path = tmp_path / "a.ply"
    logits, logs = torch.logit(sent.opacities, eps=1e-6), sent.scales.clamp_min(1e-6).log()
    export_splats(sent.means, logs, sent.quats, logits, sent.sh[:, :1], sent.sh[:, 1:], "ply", str(path))
    back = load_ply(path)
    for name in ("means", "quats", "sh"):
        assert torch.equal(getattr(back, name), getattr(sent, name)), name
    torch.testing.assert_close(back.opacities, logits.sigmoid())
    torch.testing.assert_close(back.scales, logs.exp())


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "a.ply"
    save_ply(cloud(1), path)
    before = path.read_bytes()

    def fail(source: object, target: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        save_ply(cloud(2), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["a.ply"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Write a sound PLY of SH degree 1 to be spoilt."""
    save_ply(cloud(degree=1), tmp_path / "a.ply")
    return tmp_path / "a.ply"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"ply\n", b"PNG\n", "no PLY header"),
        (b"end_header\n", b"", "no PLY header"),
        (b"binary_little_endian", b"ascii", r"is truncated|does not fit its header"),
        (b"binary_little_endian", b"zipped", "'format zipped 1.0'"),
        (b"format binary_little_endian 1.0", b"format", "'format'"),
        (b"property float x\n", b"property uint packed_position\n", "compressed PLY"),
        (b"format binary_little_endian 1.0\n", b"", "binary_little_endian"),
        (b"property float rot_3\n", b"property float other\n", "lacks rot_3"),
        (b"property float opacity\n", b"property float other\n", "lacks opacity"),
        (b"property float f_rest_8\n", b"property float other\n", "8 f_rest properties"),
        (b"property float f_rest_8\n", b"property float f_rest_9\n", "lacks f_rest_8"),
        (b"property float x\n", b"property list uchar int x\n", "a list in its vertex element"),
        (b"property float x\n", b"property half x\n", "malformed"),
        (b"property float nx\n", b"property float x\n", "malformed"),
        (b"element vertex 40", b"element vertex many", "malformed"),
        (b"element vertex 40", b"element vertex -1", "malformed"),
        (b"element vertex 40", b"element face 40", r"no vertex element \(found: face\)"),
        (b"element vertex 40\n", b"", r"no vertex element \(found: none\)"),
        (b"element vertex 40", b"element vertex 41", "truncated"),
    ],
)
def test_spoilt_files_are_refused(written: Path, old: bytes, new: bytes, says: str) -> None:
    content = written.read_bytes()
    assert content.count(old) == 1
    written.write_bytes(content.replace(old, new))
    with pytest.raises(BadDataError, match=says) as caught:
        load_ply(written)
    assert "\n" not in str(caught.value)
    assert str(written) in str(caught.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(written: Path, part: float) -> None:
    short = written.with_name("short.ply")
    content = written.read_bytes()
    short.write_bytes(content[: int(part * len(content))])
    with pytest.raises(BadDataError, match=r"truncated|no PLY header"):
        load_ply(short)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=300), with_magic=st.booleans())
def test_noise_raises_no_other_error(tmp_path: Path, noise: bytes, with_magic: bool) -> None:
    path = tmp_path / "noise.ply"
    path.write_bytes((b"ply\n" if with_magic else b"") + noise + (b"\nend_header\n" if with_magic else b""))
    with pytest.raises(BadDataError):
        load_ply(path)


@pytest.mark.parametrize("bits", [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\x47"])
@pytest.mark.parametrize(("column", "field"), [(0, "means"), (19, "scales")])
def test_nonfinite_values_are_refused(written: Path, bits: bytes, column: int, field: str) -> None:
    """NaN, infinity, and 65536, whose exponential is infinite but which is a fine coordinate."""
    content = bytearray(written.read_bytes())
    start = content.index(b"end_header\n") + 11 + 4 * column
    content[start : start + 4] = bits
    written.write_bytes(content)
    if column == 0 and bits[-1] == 0x47:
        assert load_ply(written).means[0, 0] == 65536
        return
    with pytest.raises(BadDataError, match=field):
        load_ply(written)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.ply"):
        load_ply(tmp_path / "none.ply")


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("means", float("nan"), NonFiniteError),
        ("sh", float("inf"), NonFiniteError),
        ("opacities", 1.5, ShapeError),
        ("opacities", -0.1, ShapeError),
        ("scales", -1.0, ShapeError),
    ],
)
def test_unwritable_values_are_refused(field: str, value: float, error: type[EvalsuiteError], tmp_path: Path) -> None:
    spoilt = cloud()
    changed = getattr(spoilt, field).clone()
    changed.view(-1)[-1] = value
    with pytest.raises(error, match=field):
        save_ply(replace(spoilt, **{field: changed}), tmp_path / "a.ply")
    assert not (tmp_path / "a.ply").exists()
