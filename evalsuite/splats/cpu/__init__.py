"""CPU splatting engine: gsplat's semantics in Numba kernels, deterministic, parallel over tiles.

Modules in the order data flows: `projection` (EWA, per Gaussian), `harmonics` (view-dependent colour),
`tiles` (depth-sorted list per 16x16 tile), `compositor` (front-to-back blending and its gradient).
Kernels see contiguous float32 arrays that the caller has checked; they raise nothing.
"""
