"""Scenes: procedural objects, scanned meshes, their ray-traced truth, posed captures and view splits."""
