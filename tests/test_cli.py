"""The command line by its exit codes: a mistake is one line and a code, and no finished result is lost."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from evalsuite import __version__
from evalsuite.cli import build_parser, main
from evalsuite.core.registry import resolve
from evalsuite.models.lgm import files
from evalsuite.records.store import RecordStore

PART = ("--scene", "smoke.blob", "--workers", "1")


@pytest.fixture(autouse=True)
def _may_approve(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests also run in CI, and in checkouts that somebody is working in."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("evalsuite.commands.goldens.uncommitted", lambda: ())


def gso_object(folder: Path, texture: bytes) -> None:
    """One scan in the publisher's layout: a textured tetrahedron."""
    root = folder / "gso" / "Dino_3"
    (root / "meshes").mkdir(parents=True)
    (root / "materials/textures").mkdir(parents=True)
    corners = ["0 0 0", "1 0 0", "0 1 0", "0 0 1"]
    faces = ["1/1 3/3 2/2", "1/1 2/2 4/3", "1/1 4/2 3/3", "2/1 3/2 4/3"]
    lines = [f"v {c}" for c in corners] + ["vt 0 0", "vt 1 0", "vt 0 1"] + [f"f {f}" for f in faces]
    (root / "meshes/model.obj").write_text("\n".join(lines) + "\n")
    (root / "materials/textures/texture.png").write_bytes(texture)


def png(tmp_path: Path) -> bytes:
    path = tmp_path / "texture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "--suite", "smok"),
            "unknown suite 'smok'; known: captures, paper, quality, scan, smoke. Did you mean",
        ),
        (("run", "--scene", "smoke.chiar"), "Did you mean 'smoke.chair'?"),
        (("run", "--model", "lgm-large"), "unknown model 'lgm-large'; known: lgm-big, lgm-mini"),
        (("run", "--arm", "warm"), "unknown arm 'warm'; known: a, b, c"),
        (("run", "--steps", "7"), "N=7 is not on the ladder"),
        (("noise", "--seeds", "0"), "seed 0 is the one the suite itself runs"),
        (("train", "--data", "none", "--out", "run"), "no *.glb in none; expected the training scans"),
        (("train", "--data", "none", "--out", "run", "--steps", "0"), "0 steps of 4 samples"),
        (("report", "--out", "nowhere"), "no records in nowhere"),
        (("approve", "--out", "nowhere", "--reason", "try"), "cases have no good record"),
        (("approve", "--golden", "a-file", "--reason", "try"), "--golden a-file: "),
        (("report", "--out", "a-file"), "--out a-file: "),
        (("run", "--out", "a-file/below"), "a-file is a file, expected a folder"),
        (("noise", "--out", "a-file"), "a-file is a file, expected a folder"),
        (("prepare", "smoke", "--out", "a-file"), "a-file is a file, expected a folder"),
        (("machine", "--out", "a-file"), "a-file is a file, expected a folder"),
        (("train", "--data", ".", "--out", "a-file"), "a-file is a file, expected a folder"),
        (("run", "--suite", "scan"), "none of the 20 scenes to run on is in data, as published or prepared"),
        (("noise", "--suite", "scan", "--seeds", "1"), "run: evalsuite fetch scan"),
        (("run", "--scene", "smoke.blob", "--weights", "none"), "no weights of lgm-mini at none; expected a safetens"),
        (("scenes", "--suite", "scan"), "set EVALSUITE_MIRROR"),
        (("compare", ".", ".", "--pairs", "3"), "3 pairs and a threshold of 0.05, expected >= 10 and > 0"),
        (("compare", "nowhere", "."), "nowhere is neither a folder nor a git revision"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    (tmp_path / "a-file").touch()
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


_REFUSED: tuple[tuple[str, ...], ...] = (
    ("--help",),
    ("run", "--help"),
    ("--version",),
    (),
    ("nope",),
    ("run", "--nope"),
    ("run", "--workers", "0"),
    ("run", "--suite", "nope"),
    ("run", "--scene", "nope"),
    ("run", "--arm", "nope"),
    ("run", "--steps", "7"),
    ("run", "--model", "nope"),
    ("run", "--suite", "scan"),
    ("run", "--weights", "nowhere"),
    ("run", "--out", "file"),
    ("noise", "--seeds", "0"),
    ("approve",),
    ("approve", "--reason", "try"),
    ("compare", "file", "file"),
    ("compare", ".", ".", "--pairs", "3"),
    ("report", "--out", "nowhere"),
    ("prepare", "nope"),
    ("scenes", "--suite", "scan"),
    ("weights", "--model", "lgm-big"),
    ("train", "--data", "nowhere", "--out", "run"),
    ("fetch",),
    ("fetch", "nope"),
)
_REFUSE = """
import sys
from evalsuite import __version__
from evalsuite.cli import main
for arguments in {lines!r}:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    heavy = sorted({{"torch", "numba", "matplotlib", "scipy.stats", "pycolmap", "trimesh"}} & set(sys.modules))
    if heavy or code != (0 if arguments and arguments[-1] in ("--help", "--version") else 2):
        sys.exit(f"{{arguments}}: code {{code}}, loaded {{heavy}}")
"""


def test_a_command_line_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {name: value for name, value in os.environ.items() if name != "EVALSUITE_MIRROR"} | {"CI": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _REFUSE.format(lines=_REFUSED)], cwd=tmp_path, env=environment, text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _parsers(sub)


def test_every_command_and_option_has_help_and_every_command_a_function() -> None:
    found = list(_parsers(build_parser()))
    assert len(found) > 1
    for parser in found:
        assert parser.description
        assert not [action for action in parser._actions if not action.help]
        target = parser.get_default("command")
        assert target is None or callable(resolve(f"evalsuite.commands.{target}"))
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert {choice.dest for choice in action._choices_actions if choice.help} == set(action.choices)


def test_every_option_of_the_plugin_has_help(pytestconfig: pytest.Config) -> None:
    options = pytestconfig._parser.getgroup("evalsuite").options
    assert {"--suite", "--device", "--workers"} & {name for option in options for name in option.names()}
    assert not [option.names() for option in options if not option.attrs().get("help")]


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: evalsuite" in capsys.readouterr().err


def test_version_names_the_commit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for found, shown in (
        ({"commit": "c0ffee" * 6, "dirty": True}, f"evalsuite {__version__} (commit c0ffeec0ffee, with uncommitted"),
        ({"commit": None, "dirty": None}, f"evalsuite {__version__}\n"),
    ):
        monkeypatch.setattr("evalsuite.core.machine.commit", lambda found=found: found)
        with pytest.raises(SystemExit) as end:
            main(["--version"])
        assert not end.value.code
        assert capsys.readouterr().out.startswith(shown)


def test_an_interrupted_run_is_one_line_and_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evalsuite.execution.progress.run_selection", interrupted)
    assert main(["run", *PART, "--arm", "mean-colour", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "evalsuite: interrupted; what was finished is kept\n"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b'{"schema": 99}', None])
def test_a_record_that_cannot_be_read_is_one_line(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = RecordStore(tmp_path / "records/smoke").path("smoke.blob/a")
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    assert main(["report", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert str(path) in printed
    assert printed.count("\n") == 1


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "machine.json").mkdir()
    assert main(["machine", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"evalsuite: {tmp_path / 'machine.json'}: Is a directory; expected")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--help",), ("fetch", "smoke"), ("fetch", "--list")])
def test_a_reader_that_has_enough_ends_a_command_quietly(arguments: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "evalsuite.cli", *arguments]
    switched_off = ("EVALSUITE_MIRROR", "PYTHONUNBUFFERED")
    environment = {name: value for name, value in os.environ.items() if name not in switched_off}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    os.close(write)
    assert done.stderr == b""


def test_nothing_is_approved_in_ci_nor_from_uncommitted_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evalsuite.commands.goldens.uncommitted", lambda: ("evalsuite/cli.py",))
    assert main(["approve", "--reason", "try"]) == 2
    assert "1 files of the package are not committed (first: evalsuite/cli.py)" in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    assert main(["approve", "--reason", "try"]) == 2
    assert "CI is set" in capsys.readouterr().err
    assert not (tmp_path / "golden").exists()


def test_a_truncated_texture_is_named_and_the_good_scene_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gso_object(tmp_path / "mirror", png(tmp_path)[:-100])
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    out = ("--out", str(tmp_path / "out"))
    assert main(["run", *PART, "--arm", "mean-colour", *out]) == 0
    code = main(["run", "--suite", "scan", "--scene", "gso.dino-3", "--arm", "mean-colour", "--workers", "1", *out])
    assert code == 1
    assert "texture.png" in capsys.readouterr().err
    good = RecordStore(tmp_path / "out/records/smoke").read("smoke.blob/mean-colour")
    assert good is not None
    assert good.status == "ok"


def test_a_scan_in_the_publishers_layout_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gso_object(tmp_path / "mirror", png(tmp_path))
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    arguments = ["run", "--suite", "scan", "--scene", "gso.dino-3", "--arm", "mean-colour", "--workers", "1"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0


def test_weights_of_another_shape_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_file(files.MINI_PATH)
    key = sorted(state)[0]
    save_file({**state, key: state[key][..., :1].contiguous()}, tmp_path / "bad.safetensors")
    monkeypatch.setattr(files, "MINI_PATH", tmp_path / "bad.safetensors")
    from evalsuite.arms import procedures

    procedures._network.cache_clear()
    assert main(["run", *PART, "--arm", "a", "--out", str(tmp_path / "out")]) == 1
    procedures._network.cache_clear()
    printed = capsys.readouterr().err
    assert key in printed
    record = RecordStore(tmp_path / "out/records/smoke").read("smoke.blob/a")
    assert record is not None
    assert record.status == "crashed"


def test_every_stage_of_the_pipeline_is_a_command_that_exists() -> None:
    root = Path(__file__).parents[1]
    params = YAML(typ="safe").load(root / "params.yaml")
    for stage in YAML(typ="safe").load(root / "dvc.yaml")["stages"].values():
        for command in [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]:
            for key, value in params.items():
                command = command.replace(f"${{{key}}}", str(value))
            program, *arguments = shlex.split(command.split(" > ")[0])
            if program != "mkdir":
                assert program == "evalsuite"
                build_parser().parse_args(arguments)


def test_noise_of_no_seeds_leaves_an_empty_folder(tmp_path: Path) -> None:
    assert main(["noise", "--seeds", "--out", str(tmp_path)]) == 0
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["records", "records/smoke"]


def test_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    assert main(["weights", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "weights.json").read_text())
    assert found == {"model": "lgm-mini", "sha256": hashlib.sha256(files.MINI_PATH.read_bytes()).hexdigest()}


def test_machine_and_scenes_write_what_dvc_depends_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["machine", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "machine.json").read_text())["device_class"].startswith("cpu-")
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["scenes", "--suite", "scan", "--out", str(tmp_path)]) == 2
    assert "set EVALSUITE_MIRROR" in capsys.readouterr().err
