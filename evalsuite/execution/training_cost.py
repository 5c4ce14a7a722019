"""What training cost the network that records were made with: their assets share it."""

from __future__ import annotations

from collections.abc import Iterable

from evalsuite.core.errors import MissingDataError
from evalsuite.core.suites import Suite
from evalsuite.models.lgm.files import training_seconds, weights_digest, weights_path
from evalsuite.records.schema import Record


def training_cost(suite: Suite, records: Iterable[Record]) -> float | None:
    """Seconds of processor time over all processes of the training.

    Returns:
        None if unknown: the weights do not say, or the file here is not the one that the records were made with.
    """
    used = {record.weights for record in records if record.weights}
    try:
        path = weights_path(suite.model, suite.weights)
    except MissingDataError:
        return None
    return training_seconds(path) if used == {weights_digest(path)[:12]} else None
