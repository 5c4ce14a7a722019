"""Edits that no approval made are named, and goldens agree with their own samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import CASE, golden

from evalsuite.core.errors import SchemaError
from evalsuite.gates.claims import Claim
from evalsuite.gates.golden import Approved, Golden, GoldenStore
from evalsuite.gates.noise import moderated
from evalsuite.gates.seal import contradictions, edits, seal

A, B = "smoke.chair/a", CASE
CLAIM = Claim("order", ("a", "b-capture-n50"), "psnr", 0.1, ("thin",), required=True)
ROOT = Path(__file__).parents[2] / "golden"


@pytest.fixture
def sealed(goldens: GoldenStore) -> GoldenStore:
    for case in (A, B):
        goldens.write(golden(case=case))
    seal(goldens, (CLAIM,))
    return goldens


def test_what_is_as_it_was_approved_has_no_edits(sealed: GoldenStore) -> None:
    assert edits(sealed, (CLAIM,)) == ()
    assert sealed.cases() == (A, B), "the seal is no golden"


def test_an_edited_an_added_and_a_deleted_golden_are_named(sealed: GoldenStore) -> None:
    path = sealed.path(B)
    path.write_text(path.read_text().replace('"sigma": 0.0', '"sigma": 9.0'))
    sealed.path(A).unlink()
    sealed.write(golden(case="smoke.truck/a"))
    assert edits(sealed, (CLAIM,)) == (
        f"golden of {A} was deleted",
        f"golden of {B} was edited",
        "golden of smoke.truck/a was added",
    )


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ((replace(CLAIM, margin=-50.0),), ("claim order: margin 0.1 -> -50.0",)),
        ((replace(CLAIM, required=False, strata=("blocky",)),), ("claim order: required True -> False",)),
        ((), ("claim order was removed",)),
        ((CLAIM, replace(CLAIM, id="new")), ("claim new was added",)),
    ],
)
def test_a_claim_in_other_terms_is_named(
    sealed: GoldenStore, claims: tuple[Claim, ...], found: tuple[str, ...]
) -> None:
    assert set(found) <= set(edits(sealed, claims))


def test_goldens_without_a_seal_are_named_and_no_goldens_need_none(goldens: GoldenStore) -> None:
    assert edits(goldens, (CLAIM,)) == ()
    goldens.write(golden())
    (line,) = edits(goldens, (CLAIM,))
    assert line.endswith("has 1 goldens and no seal: approve them")


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": 9, "goldens": {}, "claims": {}}', '{"schema": 1}'])
def test_a_broken_seal_is_refused(sealed: GoldenStore, text: str) -> None:
    (sealed.folder / "seal.json").write_text(text)
    with pytest.raises(SchemaError, match=r"seal\.json"):
        edits(sealed, (CLAIM,))


def measured(case: str, samples: tuple[float, ...]) -> Golden:
    approved = Approved(sum(samples) / len(samples), 1, samples=samples, views=1)
    return golden(case=case, metrics={"psnr": approved})


def honest() -> list[Golden]:
    """Two scenes whose spreads are those of their samples."""
    goldens = [measured(B, (25.0, 25.3, 25.1)), measured(B.replace("chair", "truck"), (20.0, 20.1, 20.3))]
    spreads = moderated({g.case: {"psnr": g.metrics["psnr"].samples} for g in goldens})
    return [
        replace(g, comparisons=2, metrics={"psnr": replace(g.metrics["psnr"], sigma=s.sigma, freedom=s.freedom)})
        for g in goldens
        for s in [spreads[g.case]["psnr"]]
    ]


def test_goldens_that_agree_with_their_samples_pass() -> None:
    assert contradictions([*honest(), golden(case=A)]) == ()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("value", 25.2, "psnr of smoke.chair/b-capture-n50 is 25.2, the mean of its samples 25.133333"),
        ("sigma", 0.5, "has sigma 0.5, its samples give 0."),
        ("freedom", 50.0, "has 50.00 degrees of freedom, its samples"),
        ("samples", (), "sigma"),
    ],
)
def test_a_golden_that_contradicts_its_samples_is_named(field: str, value: object, message: str) -> None:
    first, second = honest()
    first = replace(first, metrics={"psnr": replace(first.metrics["psnr"], **{field: value})})  # type: ignore[arg-type]
    assert any(message in line for line in contradictions([first, second]))


def test_a_golden_that_counts_fewer_values_than_there_are_is_named() -> None:
    """It would be held more tightly than the budget of a run allows, or a golden that counts more less so."""
    first, second = honest()
    found = contradictions([replace(first, comparisons=1000), second])
    assert found == (f"{B} counts 1000 values with noise, the samples 2",)


def test_noise_without_samples_is_nobodys_measurement() -> None:
    """A forward pass with a spread, say: it was written by hand."""
    assert contradictions([golden(case=A, sigma=1.0)]) == (f"psnr of {A} has sigma 1, its samples give 0",)


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.glob("*/*/seal.json")}), ids=str)
def test_every_golden_of_the_project_agrees_with_its_samples(folder: Path) -> None:
    store = GoldenStore(ROOT, folder.parent.name, folder.name)
    found = [golden for case in store.cases() if (golden := store.read(case))]
    assert found
    assert contradictions(found) == ()
    assert set(json.loads((folder / "seal.json").read_text())["goldens"]) == set(store.cases())


def test_every_class_of_the_project_is_sealed() -> None:
    assert {path.parent for path in ROOT.glob("*/*/machine.json")} == {p.parent for p in ROOT.glob("*/*/seal.json")}
