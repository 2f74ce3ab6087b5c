"""Settings of MEGA's moving average."""

import dataclasses
from typing import Annotated, Any

from spade_jax.config.model import ModelConfig, StackConfig
from spade_jax.config.schema import Range, require
from spade_jax.mixers.convolution import ConvolutionConfig


@dataclasses.dataclass(frozen=True)
class EMA(ConvolutionConfig, kind="ema"):
    """MEGA's damped exponential moving average of several dimensions (arXiv 2209.10655).

    A state space whose modes are real. MEGA's authors cut its kernel after 1024 taps
    (`max_kernel_length`) in all but one task of theirs.

    Attributes:
      state_size: n, moving averages of each feature and direction.
    """

    state_size: Annotated[int, Range(1, 4096)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of the other direction there is a tap less, for both share the token itself.
        require(
            self.max_kernel_length != 1,
            self.setting("max_kernel_length"),
            self.max_kernel_length,
            "must be at least 2, or None",
        )

    def flops(self, model: ModelConfig, length: int, *, causal: bool) -> int:
        """Of the convolution: both directions are one state of twice the size."""
        directions = 1 if causal else 2
        state = directions * self.state_size
        return model.d_model * self.convolution_flops(
            length, state=state, carry=0, directions=directions
        )

    def build(self, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: Any) -> Any:
        from spade_jax.mixers.ema.module import MovingAverage

        return MovingAverage(self, model.d_model, causal=causal, rngs=rngs)
