"""Fixtures of the made-up study."""

from tiny_study import approved, changes, tiny

__all__ = ["approved", "changes", "tiny"]
