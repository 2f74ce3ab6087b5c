"""How outputs are written, as frozen dataclasses that know no framework."""

import dataclasses

from spade_jax.config import require


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest token.
      top_k: draw from the so many likeliest tokens only; None: from all.
      top_p: draw from the fewest likeliest tokens that hold at least this probability (nucleus
        sampling, arXiv 1904.09751), after temperature and top_k.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.temperature >= 0.0, "decoding.temperature", self.temperature, "must be at least 0"
        )
        require(
            self.top_k is None or self.top_k >= 1,
            "decoding.top_k",
            self.top_k,
            "must be at least 1, or None for all tokens",
        )
        require(
            0.0 < self.top_p <= 1.0, "decoding.top_p", self.top_p, "must be above 0 and at most 1"
        )


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """How the likeliest output is looked for.

    Attributes:
      beams: hypotheses of beam search; 1 takes one token after the other.
      length_penalty: the exponent alpha of beam search's `length_penalty`.
    """

    beams: int = 1
    length_penalty: float = 0.6

    def __post_init__(self) -> None:
        require(self.beams >= 1, "decoding.beams", self.beams, "must be at least 1")
        require(
            self.length_penalty >= 0.0,
            "decoding.length_penalty",
            self.length_penalty,
            "must be at least 0",
        )


@dataclasses.dataclass(frozen=True)
class DecodingConfig(SamplingConfig, BeamConfig):
    """How outputs are written.

    Attributes:
      max_length: the most tokens of an output, with its end.
    """

    max_length: int = 128

    def __post_init__(self) -> None:
        SamplingConfig.__post_init__(self)
        BeamConfig.__post_init__(self)
        require(self.max_length >= 1, "decoding.max_length", self.max_length, "must be at least 1")
        require(
            self.beams == 1 or self.temperature == 0.0,
            "decoding.temperature",
            self.temperature,
            f"must be 0 with decoding.beams = {self.beams}: beam search draws nothing",
        )
