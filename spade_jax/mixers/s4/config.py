"""Settings of S4 and S4D."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import MAX_LENGTH, ModelConfig, StackConfig
from spade_jax.config.schema import Range, require, require_choice


@dataclasses.dataclass(frozen=True)
class S4(MixerConfig, kind="s4"):
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
      convolution: how the sequence is run: "chunked", "fft" or the plain "reference" recurrence.
      chunk_length: t, tokens per block of the chunked convolution. A sequence of at most as many
        is one block, which needs no states.
      max_kernel_length: taps after which the kernel is cut off; None never cuts it. The authors
        cut theirs (`l_max`).
      implementation: what computes the chunked convolution; None is the best on the platform.
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
    convolution: Literal["chunked", "fft", "reference"] = "chunked"
    chunk_length: Annotated[int, Range(1, 2**16)] = 128
    max_kernel_length: (
        Annotated[int, Range(1, MAX_LENGTH, "for a kernel that is never cut")] | None
    ) = None
    implementation: str | None = None
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
        require(
            self.chunk_length & (self.chunk_length - 1) == 0,
            "model.mixers.s4.chunk_length",
            self.chunk_length,
            "must be a power of two",
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

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        pieces = shards("length")
        if pieces == 1:
            return
        require(
            self.convolution == "chunked",
            "model.mixers.s4.convolution",
            self.convolution,
            f'must be "chunked" with mesh.sequence = {pieces}',
        )
        require(
            length % (pieces * self.chunk_length) == 0,
            "mesh.sequence",
            pieces,
            f"must cut sequences of {length} tokens into equal shards of whole chunks, of "
            f"model.mixers.s4.chunk_length = {self.chunk_length} tokens each",
        )

    def check_implementation(self, model: ModelConfig) -> None:
        if self.implementation is not None:
            from spade_jax.ops.ssm.convolution import CHUNKED

            setting = "model.mixers.s4.implementation"
            require_choice(setting, self.implementation, CHUNKED.implementations)
            require(
                self.convolution == "chunked",
                setting,
                self.implementation,
                f'must be None with convolution "{self.convolution}", which has one only',
            )

    def flops(self, model: ModelConfig, length: int, *, causal: bool) -> int:
        """Of the chunked convolution: taps, of both directions at once, and states written, read
        and carried, which takes two products a block. A diagonal state space carries its state
        without a matmul. The operators of a chunk, which cost the same for any length and batch,
        are not counted."""
        n, t = self.state_size, self.chunk_length
        if length <= t:
            return model.d_model * 2 * length
        carry = 4 * n * n // t if self.low_rank else 0
        return model.d_model * (2 * t + (1 if causal else 2) * (4 * n + carry))

    def build(self, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: Any) -> Any:
        from spade_jax.mixers.s4.module import StateSpaceMixer

        return StateSpaceMixer(self, model.d_model, causal=causal, rngs=rngs)
