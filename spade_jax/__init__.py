"""SPADE, the State sPace AugmenteD transformEr, in JAX and Flax."""

# So that patterns and configuration files know every kind of mixer.
import spade_jax.mixers  # noqa: F401
