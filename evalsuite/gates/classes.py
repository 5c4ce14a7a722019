"""Device classes that have goldens, and what to do on one that has none."""

from __future__ import annotations

from evalsuite.gates.golden import GoldenStore


def missing_class(goldens: GoldenStore) -> str | None:
    """One line for a device class without a single golden of this suite, None if there is one.

    It stands for a ``no-golden`` of every case: nobody has approved anything here, which no single case tells.
    """
    if goldens.cases():
        return None
    suite, device_class = goldens.folder.parts[-2:]
    root = goldens.folder.parents[1]
    folders = sorted(goldens.folder.parent.glob("*")) if goldens.folder.parent.is_dir() else []
    present = [folder.name for folder in folders if GoldenStore(root, suite, folder.name).cases()]
    device = " --device cuda" if device_class.startswith("cuda") else ""
    return (
        f"no goldens for {device_class} yet ({suite} has {', '.join(present) or 'none on any class'}): run `evalsuite "
        f"run --suite {suite}{device}` and `evalsuite noise --suite {suite}{device} --seeds 1 2 3 4`, look at the "
        f'records, then `evalsuite approve --suite {suite} --seeds 1 2 3 4 --reason "..."` and commit golden/'
    )
