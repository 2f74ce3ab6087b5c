"""Fused attention on GPUs: kernels in Pallas, which hold scores in registers and nowhere else.

`backend` knows Pallas and the hardware; `plan` which tiles are visited; `bias` how biases are
looked up and their gradient summed; `kernels` the arithmetic; `flash` calls the kernels;
`operations` has what is registered.
"""
