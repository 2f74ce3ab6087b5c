"""Settings of a vocabulary in bands; know no framework."""

import dataclasses
from typing import Annotated

from spade_jax.config.schema import Count, Range, check_fields, require


@dataclasses.dataclass(frozen=True)
class AdaptiveConfig:
    """A vocabulary whose tokens are numbered by frequency, the most frequent first, and cut into
    bands: the rarer their tokens, the narrower their embeddings.

    Attributes:
      cutoffs: the first token of each band after the first.
      factor: band i, from 0, has embeddings of d_model // factor ** i numbers.
      dropout_rate: on what the softmax is computed from, and once more in each band after the
        first.
    """

    cutoffs: tuple[Count, ...]
    factor: Annotated[int, Range(1, 2**10)] = 4
    dropout_rate: Annotated[float, Range(0, 1, below=True)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "model.adaptive.")
        require(
            len(self.cutoffs) > 0 and all(a < b for a, b in zip(self.cutoffs, self.cutoffs[1:])),
            "model.adaptive.cutoffs",
            self.cutoffs,
            "must be ascending, and at least one",
        )

    def check_model(self, vocab_size: int, d_model: int) -> None:
        """Raises ConfigError where it is no division of such a vocabulary."""
        require(
            self.cutoffs[-1] < vocab_size,
            "model.adaptive.cutoffs",
            self.cutoffs,
            f"must be below model.vocab_size = {vocab_size}",
        )
        narrowest = self.factor ** len(self.cutoffs)
        require(
            narrowest <= d_model,
            "model.adaptive.factor",
            self.factor,
            f"must leave the last band a width of at least 1: model.d_model = {d_model} is divided "
            f"by {narrowest}",
        )

    def sizes(self, vocab_size: int) -> tuple[int, ...]:
        """How many tokens each band has."""
        ends = (*self.cutoffs, vocab_size)
        return tuple(end - start for start, end in zip((0, *self.cutoffs), ends))

    def widths(self, d_model: int) -> tuple[int, ...]:
        """How many numbers the embeddings of each band have."""
        return tuple(d_model // self.factor**i for i in range(len(self.cutoffs) + 1))
