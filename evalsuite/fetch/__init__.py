"""Data that is not in the repository: what there is (`manifest`), from where, and how it is known to be whole.

Only `download` opens a connection; nothing else of evalsuite does.
"""
