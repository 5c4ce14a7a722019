"""evalsuite: feed-forward or per-scene optimisation, measured on one architecture and gated in CI."""

__version__ = "0.1.0"
