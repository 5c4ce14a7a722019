"""Numba kernels of the metrics; they see contiguous float32 arrays that the caller has checked, and raise nothing."""
