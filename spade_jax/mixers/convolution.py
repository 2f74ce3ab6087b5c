"""Settings that all mixers which run a state space over the sequence have in common."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal, Self

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import MAX_LENGTH, ModelConfig
from spade_jax.config.schema import Range, require, require_choice


@dataclasses.dataclass(frozen=True)
class ConvolutionConfig(MixerConfig):
    """A mixer that is a convolution.

    Attributes:
      convolution: how the sequence is run: "chunked", "fft" or the plain "reference" recurrence.
      chunk_length: t, tokens per block of the chunked convolution. A sequence of at most as many
        is one block, which needs no states.
      max_kernel_length: taps after which the kernel is cut off; None never cuts it.
      implementation: what computes the chunked convolution; None is the best on the platform.
    """

    convolution: Literal["chunked", "fft", "reference"] = "chunked"
    chunk_length: Annotated[int, Range(1, 2**16)] = 128
    max_kernel_length: (
        Annotated[int, Range(1, MAX_LENGTH, "for a kernel that is never cut")] | None
    ) = None
    implementation: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.chunk_length & (self.chunk_length - 1) == 0,
            self.setting("chunk_length"),
            self.chunk_length,
            "must be a power of two",
        )

    def setting(self, name: str) -> str:
        """A setting's name in messages."""
        return f"model.mixers.{self.kind}.{name}"

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        pieces = shards("length")
        if pieces == 1:
            return
        require(
            self.convolution == "chunked",
            self.setting("convolution"),
            self.convolution,
            f'must be "chunked" with mesh.sequence = {pieces}',
        )
        require(
            length % (pieces * self.chunk_length) == 0,
            "mesh.sequence",
            pieces,
            f"must cut sequences of {length} tokens into equal shards of whole chunks, of "
            f"{self.setting('chunk_length')} = {self.chunk_length} tokens each",
        )

    def check_implementation(self, model: ModelConfig) -> None:
        if self.implementation is not None:
            from spade_jax.ops.ssm.convolution import CHUNKED

            setting = self.setting("implementation")
            require_choice(setting, self.implementation, CHUNKED.implementations)
            require(
                self.convolution == "chunked",
                setting,
                self.implementation,
                f'must be None with convolution "{self.convolution}", which has one only',
            )

    def run_by(self, implementation: str) -> Self:
        if self.convolution != "chunked":
            return self
        return dataclasses.replace(self, implementation=implementation)

    def convolution_flops(self, length: int, *, state: int, carry: int, directions: int) -> int:
        """Of the chunked convolution, per token and feature: taps, of both directions at once, and
        states written, read and carried. The operators of a chunk, which cost the same for any
        length and batch, are not counted.

        Args:
          state: entries of a state.
          carry: operations of carrying one from a chunk to the next by matmuls.
        """
        t = self.chunk_length
        if length <= t:
            return 2 * length
        return 2 * t + directions * (4 * state + carry // t)
