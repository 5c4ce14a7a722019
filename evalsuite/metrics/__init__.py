"""Metrics: declarations (`spec`, no torch), pure functions (`image`) and their use on a result (`evaluate`)."""
