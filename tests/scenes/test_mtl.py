"""Material libraries by themselves; what becomes of a mesh is in test_obj.py."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalsuite.core.errors import BadDataError
from evalsuite.scenes.mtl import Material, read_mtl

OPTIONS = ["-s 1 1 1", "-o 0 0", "-mm 0 1", "-blendu off", "-bm 0.5", "-texres 512", "-cc off", "-type sphere"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.lists(st.sampled_from(OPTIONS)),
    name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_ ()]{0,12}[a-z]\.png", fullmatch=True),
    blank=st.sampled_from([" ", "\t", "  "]),
)
def test_options_in_any_number_leave_the_name(options: list[str], name: str, blank: str, tmp_path: Path) -> None:
    line = blank.join(["map_Kd", *options]) + blank + name
    (tmp_path / "a.mtl").write_text(f"newmtl m\n{line}\n")
    assert read_mtl(tmp_path / "a.mtl") == {"m": Material(texture=name)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200))
def test_noise_raises_no_other_error(noise: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_bytes(b"newmtl m\nKd " + noise)
    with suppress(BadDataError):
        assert all(0 <= abs(value) < float("inf") for value in read_mtl(tmp_path / "a.mtl")["m"].kd)
