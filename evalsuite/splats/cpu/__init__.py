"""CPU splatting engine: gsplat's semantics in Numba kernels, deterministic, parallel over tiles.

Modules in the order data flows: `projection` (EWA, per Gaussian), `harmonics` (view-dependent colour),
`tiles` (depth-sorted list per 16x16 tile), `compositor` (front-to-back blending and its gradient), `photometric` (the
loss); `simd` is the vector type that the last two are written in.
Kernels see contiguous float32 arrays that the caller has checked; they raise nothing.
"""

from evalsuite.core.kernels import keep_kernels

keep_kernels(__file__)
