"""The Long Range Arena's made data (Tay et al. 2021), by the published procedures.

`python -m spade_jax.data.lra.listops` and `python -m spade_jax.data.lra.pathfinder` write it in the
files of the original, which `data.classification` reads as it reads the original's. `expressions`
and `stimuli` (with `drawing`) are what they draw.
"""
