"""Judgement: records against goldens, claims, completeness. Reads record files only; never imports torch."""
