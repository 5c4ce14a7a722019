"""Loads the evalsuite plugin; everything else lives in the package."""

pytest_plugins = ["evalsuite.plugin", "pytester"]
