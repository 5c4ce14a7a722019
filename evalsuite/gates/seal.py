"""What was approved, sealed: an edit of a golden or a claim that no approval made is named.

``golden/<suite>/<device class>/seal.json`` holds a hash of every golden and the terms of every claim, as the last
approval of that class left them. It keeps nobody from editing, the seal included; it keeps an edit from going unnoticed
in a run. Goldens are also held to themselves: a value is the mean of its samples, and a spread is what all samples of
the suite give (`evalsuite.gates.noise.moderated`).
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalsuite.core.errors import SchemaError
from evalsuite.gates.claims import Claim
from evalsuite.gates.golden import Golden, GoldenStore, noisy
from evalsuite.gates.noise import moderated

SCHEMA = 1

_RELATIVE = 1e-5
"""Files hold eight digits of values, samples and spreads, and two decimals of degrees of freedom."""


def seal(goldens: GoldenStore, claims: Iterable[Claim]) -> None:
    """Write down goldens and claims as they are now; call it when an approval has written the last of them."""
    tree = {"schema": SCHEMA, "goldens": _hashes(goldens), "claims": _terms(claims)}
    path = _path(goldens)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def edits(goldens: GoldenStore, claims: Iterable[Claim]) -> tuple[str, ...]:
    """What differs from the seal, one line each; empty without goldens.

    Raises:
        SchemaError: the seal cannot be read.
    """
    path, now = _path(goldens), _hashes(goldens)
    if not path.exists():
        return (f"{goldens.folder} has {len(now)} goldens and no seal: approve them",) if now else ()
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["schema"] > SCHEMA:
            raise SchemaError(f"{path} has schema {tree['schema']}, this evalsuite reads up to {SCHEMA}; upgrade it")
        then, terms = dict(tree["goldens"]), dict(tree["claims"])
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"{path} is not a seal ({error!r}); restore it from git") from None
    found = [
        f"golden of {case} was {'added' if case not in then else 'deleted' if case not in now else 'edited'}"
        for case in sorted({*then, *now})
        if then.get(case) != now.get(case)
    ]
    return (*found, *_claim_edits(terms, _terms(claims)))


def contradictions(goldens: Iterable[Golden]) -> tuple[str, ...]:
    """Goldens of one suite and class that disagree with their own samples, one line per metric."""
    goldens = tuple(goldens)
    samples = {
        golden.case: {name: approved.samples for name, approved in golden.metrics.items() if len(approved.samples) > 1}
        for golden in goldens
    }
    spreads = moderated({case: metrics for case, metrics in samples.items() if metrics})
    noise = sum(noisy(metric, s.sigma) for metrics in spreads.values() for metric, s in metrics.items())
    found = []
    for golden in goldens:
        if golden.case in spreads and golden.comparisons != noise:
            found.append(f"{golden.case} counts {golden.comparisons} values with noise, the samples {noise}")
        for name, approved in golden.metrics.items():
            where = f"{name} of {golden.case}"
            if approved.samples and not _close(approved.value, statistics.fmean(approved.samples)):
                mean = statistics.fmean(approved.samples)
                found.append(f"{where} is {approved.value:.8g}, the mean of its samples {mean:.8g}")
            spread = spreads.get(golden.case, {}).get(name)
            sigma = spread.sigma if spread else 0.0
            if not _close(approved.sigma, sigma):
                found.append(f"{where} has sigma {approved.sigma:.8g}, its samples give {sigma:.8g}")
            elif spread and abs(approved.freedom - spread.freedom) > 0.01:
                found.append(f"{where} has {approved.freedom:.2f} degrees of freedom, its samples {spread.freedom:.2f}")
    return tuple(found)


def _close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=_RELATIVE, abs_tol=1e-12)


def _claim_edits(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for claim in sorted({*then, *now}):
        if claim not in then or claim not in now:
            found.append(f"claim {claim} was {'added' if claim not in then else 'removed'}")
            continue
        found += [
            f"claim {claim}: {name} {then[claim].get(name)} -> {value}"
            for name, value in now[claim].items()
            if then[claim].get(name) != value
        ]
    return found


def _hashes(goldens: GoldenStore) -> dict[str, str]:
    return {case: hashlib.sha256(goldens.path(case).read_bytes()).hexdigest()[:12] for case in goldens.cases()}


def _terms(claims: Iterable[Claim]) -> dict[str, dict[str, Any]]:
    """Claims by id, in the types that JSON gives back."""
    found: dict[str, dict[str, Any]] = json.loads(json.dumps({claim.id: asdict(claim) for claim in claims}))
    for terms in found.values():
        del terms["id"]
    return found


def _path(goldens: GoldenStore) -> Path:
    return goldens.folder / "seal.json"
