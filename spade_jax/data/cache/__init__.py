"""A cache: tokens cut into segments once, read at random afterwards.

`python -m spade_jax.data.cache` makes one. `manifest` says what it holds, `build` makes it (`beam`:
on a cluster), `batches` turns it into what `pipeline` gives without a cache.
"""
