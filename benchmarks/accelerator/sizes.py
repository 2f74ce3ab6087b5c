"""What is measured: base as it is pre-trained, or a miniature of it that a CPU gets through."""

import dataclasses

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.presets import preset
from spade_jax.training.config import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Batch:
    """So many rows of so many input and target tokens."""

    rows: int
    inputs: int
    targets: int

    def __str__(self) -> str:
        return f"{self.rows} x ({self.inputs:,} + {self.targets:,})"

    @property
    def tokens(self) -> int:
        return self.rows * (self.inputs + self.targets)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A model, and its batches.

    Attributes:
      batches: the most important one first; of equally many input tokens each.
      checked: of the inputs on which implementations are compared.
      miniature: whether all of it is done in no time.
    """

    model: EncoderDecoderConfig
    batches: tuple[Batch, ...]
    checked: Batch
    miniature: bool = False


# Targets are what span corruption makes of the inputs.
BASE = Sizes(
    preset("base", vocab_size=32128, dtype="bfloat16", remat="dots"),
    (Batch(8, 4096, 910), Batch(2, 16384, 3642), Batch(32, 1024, 229)),
    # Of no whole number of tiles.
    Batch(2, 700, 229),
)
SMALL = Sizes(
    preset(
        "tiny",
        vocab_size=64,
        dtype="bfloat16",
        remat="dots",
        d_model=32,
        d_ff=32,
        encoder=StackConfig("s4+window:concat, window"),
        decoder=StackConfig("full"),
        mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(7)},
        attention=AttentionConfig(num_heads=2, head_dim=16, num_buckets=8, max_distance=12),
    ),
    (Batch(2, 40, 20), Batch(1, 80, 36)),
    Batch(2, 40, 20),
    miniature=True,
)
# As in configs/pretrain/base.py.
OPTIMIZER = OptimizerConfig(
    name="adafactor",
    learning_rate=0.01,
    schedule="rsqrt_decay",
    warmup_steps=10_000,
    weight_decay=0.0,
    clip_norm=None,
)
Z_LOSS = 1e-4
