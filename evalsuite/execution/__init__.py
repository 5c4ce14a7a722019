"""Where trajectories run: each one ends in a record per case, whatever happens on the way."""
