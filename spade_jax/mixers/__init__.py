"""How the tokens of a sequence come together: one room for each kind of mixer.

Only settings are imported here, which know no framework: so every kind is known to patterns.
"""

from spade_jax.mixers.attention.config import Chunk, Full, Window
from spade_jax.mixers.ema.config import EMA
from spade_jax.mixers.mega.config import Mega
from spade_jax.mixers.s4.config import S4

__all__ = ["EMA", "S4", "Chunk", "Full", "Mega", "Window"]
