"""Vocabulary shared by every stage: types, conventions, protocol, case ids, registry, errors."""
