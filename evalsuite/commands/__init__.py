"""What the commands of `evalsuite.cli` do. Each checks first, and imports what takes seconds only then."""
