"""What a mixer's settings offer to the rest: by this a model knows its mixers, and nothing else."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from spade_jax.config.schema import Kinds, check_fields

if TYPE_CHECKING:
    from spade_jax.config.model import ModelConfig, StackConfig


@dataclasses.dataclass(frozen=True)
class MixerConfig(Kinds, family="kind of mixer"):
    """Settings of one kind of mixer: how the tokens of a sequence come together.

    `class Window(MixerConfig, kind="window")` makes a kind known: to patterns by this name, with
    its default settings, and to `model.mixers`, which names others. Every field has a default.

    Attributes:
      gates_residual: alone in a layer, the mixer is called with the layer's `residual` x, before
        any norm; what it gives is added to x as it is, and dropout is its own affair.
    """

    gates_residual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self, f"model.mixers.{self.kind}.")

    def check_model(self, model: "ModelConfig") -> None:
        """Raises ConfigError where the mixer cannot be part of this model."""

    def check_mesh(
        self,
        model: "ModelConfig",
        length: int,
        *,
        causal: bool,
        shards: Callable[[str], int],
    ) -> None:
        """Raises ConfigError where a mesh cannot share out the mixer's work.

        Args:
          length: of the sequences, in tokens.
          shards: into how many pieces the mesh cuts a named axis, such as "length" or "heads".
        """

    def check_implementation(self, model: "ModelConfig") -> None:
        """Raises ConfigError where an implementation is named that its operation lacks, or that
        cannot take it on the platform at hand (`partition.platform`)."""

    def run_by(self, implementation: str) -> Self:
        """The same, computed by the implementation of this name in what is the mixer's own."""
        return self

    def relative_reach(self, model: "ModelConfig", length: int) -> int | None:
        """How many places to either side the mixer needs the stack's relative biases for; None:
        it takes none."""
        return None

    def flops(self, model: "ModelConfig", length: int, *, causal: bool) -> float:
        """Floating-point operations of matmuls in the forward pass, per token of a sequence: what
        the result needs, and not what an implementation computes beside it."""
        raise NotImplementedError

    def build(self, model: "ModelConfig", stack: "StackConfig", *, causal: bool, rngs: Any) -> Any:
        """The mixer (`spade_jax.mixers.base.Mixer`), with parameters from `rngs`.

        Args:
          stack: the one that it is part of.
          causal: tokens see none behind them.
        """
        raise NotImplementedError


class Mixers(dict[str, MixerConfig]):
    """Mixers by name; hashable, for nobody changes them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted((name, hash(mixer)) for name, mixer in self.items())))
