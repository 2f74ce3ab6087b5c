"""A run's model for other programs: `python -m spade_jax.interop.export --help`."""
