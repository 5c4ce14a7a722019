"""Errors of one family, each with the status its record will show."""

from __future__ import annotations

import copy
import inspect
from typing import get_args

import pytest

from evalsuite.core import errors
from evalsuite.core.errors import EvalsuiteError, Status, UnknownNameError

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_is_of_the_family(kind: type[Exception]) -> None:
    assert issubclass(kind, EvalsuiteError)
    assert kind.status in get_args(Status)
    assert kind.status != "ok"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("MissingDataError", "missing-data"),
        ("NonFiniteError", "nonfinite"),
        ("UnsupportedError", "unsupported"),
        ("BadDataError", "crashed"),
    ],
)
def test_status_of_an_error(name: str, status: str) -> None:
    assert getattr(errors, name).status == status


def test_a_wrong_shape_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="x is flat"):
        raise errors.ShapeError("x is flat, expected depth: unsqueeze it")


def test_an_unknown_name_among_none() -> None:
    assert str(UnknownNameError("arm", "x", [])).startswith("unknown arm 'x'; known: ")


@pytest.mark.parametrize("error", [errors.OptionError("no"), UnknownNameError("arm", "ab", ["b", "abc"])])
def test_errors_cross_processes(error: EvalsuiteError) -> None:
    """A worker's error reaches the parent through the reduce protocol, which copying uses as well."""
    back = copy.copy(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
