"""Fused attention on TPUs: kernels in Pallas, which hold scores in vector memory and nowhere else.

`operations` has what is registered; `window` and `full` bring arrays to the kernels, whose
arithmetic is in `window_kernels` and `full_kernels`; `heads` knows how heads lie in lanes, `tiles`
what both kernels do with tiles.
"""
