"""How outputs are written, as frozen dataclasses that know no framework."""

import dataclasses
from typing import Annotated

from spade_jax.config import MAX_LENGTH, MAX_VOCABULARY, Range, check_fields, require


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: draw from the so many likeliest tokens only; None: from all.
      top_p: draw from the fewest likeliest tokens that hold at least this probability (nucleus
        sampling, arXiv 1904.09751), after temperature and top_k.
    """

    temperature: Annotated[float, Range(0, 1e6)] = 0.0
    top_k: Annotated[int, Range(1, MAX_VOCABULARY, "for all tokens")] | None = None
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "decoding.")


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """How the likeliest output is looked for.

    Attributes:
      beams: hypotheses of beam search; 1 takes one token after the other.
      length_penalty: the exponent alpha of beam search's `length_penalty`.
    """

    beams: Annotated[int, Range(1, 2**16)] = 1
    length_penalty: Annotated[float, Range(0, 10)] = 0.6

    def __post_init__(self) -> None:
        check_fields(self, "decoding.")


@dataclasses.dataclass(frozen=True)
class DecodingConfig(SamplingConfig, BeamConfig):
    """How outputs are written.

    Attributes:
      max_length: the most tokens of an output, with its end.
    """

    max_length: Annotated[int, Range(1, MAX_LENGTH)] = 128

    def __post_init__(self) -> None:
        check_fields(self, "decoding.")
        require(
            self.beams == 1 or self.temperature == 0.0,
            "decoding.temperature",
            self.temperature,
            f"must be 0 with decoding.beams = {self.beams}: beam search draws nothing",
        )
