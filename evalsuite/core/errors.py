"""Every error a user can cause, under one base class.

Each message says what was found, what was expected and the next step, on one line. The CLI and the
pytest plugin print it as it is and exit non-zero; nothing here is caught and logged away.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

Status = Literal[
    "ok", "oom", "timeout", "unsupported", "missing-data", "misaligned", "nonfinite", "no-surface", "crashed"
]
"""Why a case has, or has not, produced numbers. ``ok`` is the only one that carries metrics."""


class EvalsuiteError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        status: what a record says when this error ends a case.
    """

    status: Status = "crashed"


class UnknownNameError(EvalsuiteError):
    """A scene, arm, suite, metric or model name that is not registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(self.known)}.{hint}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        """Rebuild from the arguments, not from the message: the error crosses process borders."""
        return type(self), (self.kind, self.name, self.known)


class OptionError(EvalsuiteError):
    """An option or setting outside what the protocol allows."""


class MissingDataError(EvalsuiteError):
    """A file the case needs is not on this machine; the message ends with the command that fetches it."""

    status: Status = "missing-data"


class BadDataError(EvalsuiteError):
    """A file is there but cannot be used: truncated, empty, of another layout."""


class FetchError(EvalsuiteError):
    """A publisher or mirror did not give a whole file; what came so far is kept and gone on from."""

    status: Status = "missing-data"


class WrongHashError(EvalsuiteError):
    """A file is not the one that the manifest, or the first download, says it is.

    Attributes:
        name: item of the manifest.
        found: SHA-256 of what is there, hexadecimal.
        expected: SHA-256 that it had to have.
    """

    def __init__(self, name: str, found: str, expected: str, next_step: str) -> None:
        self.name, self.found, self.expected, self.next_step = name, found, expected, next_step
        super().__init__(f"{name}: sha256 is {found}, expected {expected}: {next_step}")

    def __reduce__(self) -> tuple[type[WrongHashError], tuple[str, str, str, str]]:
        """Rebuild from the arguments, not from the message: the error crosses process borders."""
        return type(self), (self.name, self.found, self.expected, self.next_step)


class UnsafeArchiveError(BadDataError):
    """An archive would write outside its folder, write more than it may, or hold anything but files and folders."""


class BadWeightsError(EvalsuiteError):
    """A weights file does not fit the network it is loaded into."""


class ShapeError(EvalsuiteError, ValueError):
    """An argument has the wrong shape, dtype or range; the message names the argument."""


class MisalignedError(EvalsuiteError):
    """Poses, images and prediction contradict each other: a number would measure the mistake, not the method."""

    status: Status = "misaligned"


class NonFiniteError(EvalsuiteError):
    """A NaN or an infinity where a finite number is required."""

    status: Status = "nonfinite"


class UnsupportedError(EvalsuiteError):
    """The arm or engine declares that it cannot do this case."""

    status: Status = "unsupported"


class PhaseError(EvalsuiteError):
    """A phase of the clock with no such name, or begun within another: time would be lost or counted twice."""


class NotComparableError(EvalsuiteError):
    """Records of different protocols, schema or metric versions were put side by side."""


class SchemaError(EvalsuiteError):
    """A JSON file of evalsuite's own is malformed, or written by a newer version."""


class OutdatedError(SchemaError):
    """A file of an older schema, which is not read any more: what it holds is made anew."""
