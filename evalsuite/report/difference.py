"""What records say beside their goldens, for people: nothing is judged, nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from evalsuite.core.errors import SchemaError
from evalsuite.gates.golden import Comparison, GoldenStore, compare, describe
from evalsuite.gates.means import means
from evalsuite.records.store import RecordStore


def difference_lines(records: RecordStore, goldens: GoldenStore, expected: Sequence[str]) -> list[str]:
    """Cases and means over scenes that moved, what else differs from when the goldens were made, and the counts.

    Args:
        expected: ids of the suite's cases; one without a record or a golden is counted as such.
    """
    comparisons = [_compared(case, records, goldens) for case in expected]
    counts = Counter(comparison.verdict for comparison in comparisons)
    lines = [line for comparison in comparisons if comparison.verdict != "same" for line in describe(comparison)]
    changed = [comparison for comparison in comparisons if comparison.changes]
    read = {comparison.case: goldens.read(comparison.case) for comparison in changed}
    found = means(changed, {case: golden for case, golden in read.items() if golden is not None})
    lines += [f"{mean.verdict:12} {mean}" for mean in found if mean.verdict != "same"]
    differing = Counter(line for comparison in comparisons for line in comparison.differs)
    lines += [f"differs in {count} cases: {line}" for line, count in sorted(differing.items())]
    return [*lines, f"{len(expected)} cases: {', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items()))}"]


def _compared(case: str, records: RecordStore, goldens: GoldenStore) -> Comparison:
    try:
        return compare(case, records.read(case), goldens.read(case))
    except SchemaError as error:
        return Comparison(case, "failed", reason=str(error))
