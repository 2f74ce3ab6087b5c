"""Settings of S4 and S4D."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from spade_jax.config.model import ModelConfig, StackConfig
from spade_jax.config.schema import Range, require
from spade_jax.mixers.convolution import ConvolutionConfig


@dataclasses.dataclass(frozen=True)
class S4(ConvolutionConfig, kind="s4"):
    """The state space model x' = A x + B u, y = C x + D u that carries global information.

    S4 (arXiv 2111.00396), or S4D (2206.11893).

    Attributes:
      init: "legs" is S4, A = diag(w) - P P^*, which begins as HiPPO-LegS; the others are S4D,
        A = diag(w), and say what w begins as (`ops.ssm.hippo.s4d`).
      state_size: n, the full (real) state size; n / 2 conjugate pairs are stored.
      num_copies: independent (A, B), tiled over features: feature f uses copy f % num_copies.
        None is one per feature.
      discretization: "bilinear" or "zoh" (zero-order hold).
      dt_min, dt_max: range of the log-uniform initial step sizes, in units of one token.
      output: "plain" is y = SSM(x) + D x; "glu" is S4D's block around it, (W gelu(y) + b) *
        sigmoid(W' gelu(y) + b').
      detach: no gradient passes, neither to the SSM's parameters nor to its input, as in the
        authors' encoder-decoder.
    """

    MOVED: ClassVar[Mapping[str, str]] = {"structure": "init, which alone decides"}

    init: Literal["legs", "diag-lin", "diag-inv", "diag-legs"] = "legs"
    state_size: Annotated[int, Range(2, 4096)] = 64
    num_copies: Annotated[int, Range(1, 2**17, "for one per feature")] | None = None
    discretization: Literal["bilinear", "zoh"] = "bilinear"
    dt_min: Annotated[float, Range(1e-9, 1000)] = 1e-3
    dt_max: Annotated[float, Range(1e-9, 1000)] = 1e-1
    output: Literal["plain", "glu"] = "plain"
    detach: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.state_size % 2 == 0,
            "model.mixers.s4.state_size",
            self.state_size,
            "must be even, for states are stored as conjugate pairs",
        )
        require(
            self.dt_min <= self.dt_max,
            "model.mixers.s4.dt_min",
            self.dt_min,
            f"must be at most dt_max = {self.dt_max}",
        )

    @property
    def low_rank(self) -> bool:
        """Whether A has a part of rank one beside its diagonal."""
        return self.init == "legs"

    def check_model(self, model: ModelConfig) -> None:
        require(
            self.num_copies is None or model.d_model % self.num_copies == 0,
            "model.mixers.s4.num_copies",
            self.num_copies,
            f"must divide d_model = {model.d_model}",
        )

    def flops(self, model: ModelConfig, length: int, *, causal: bool) -> int:
        """Of the convolution, and of the output's two maps. A state that A is no diagonal of is
        carried by two products a block."""
        n = self.state_size
        carry = 4 * n * n if self.low_rank else 0
        convolution = self.convolution_flops(
            length, state=n, carry=carry, directions=1 if causal else 2
        )
        output = 2 * 2 * model.d_model if self.output == "glu" else 0
        return model.d_model * (convolution + output)

    def build(self, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: Any) -> Any:
        from spade_jax.mixers.s4.module import StateSpaceMixer

        return StateSpaceMixer(self, model, causal=causal, rngs=rngs)
