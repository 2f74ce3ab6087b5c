"""What makes a sequence of a text or of an image in grey. Token 0 is padding, always."""

import functools
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from spade_jax.data.classification.config import (
    LISTOPS_SYMBOLS,
    VOCABULARIES,
    ClassificationDataConfig,
)
from spade_jax.data.config import DataError
from spade_jax.data.digests import digest

_PARENTHESES = str.maketrans("()", "  ")
_CODE_POINTS = 0x110000
UNKNOWN = 1


class Encoder(Protocol):
    """One way from inputs to sequences.

    Attributes:
      size: of the vocabulary, padding included; what numbers are below, of pixels.
      digest: equal for equal meanings of tokens.
    """

    size: int
    digest: str

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        """The sequence of a text or an image, integers [any] below `size`.

        Raises:
          DataError: an input that makes none; whoever reads rows adds where.
        """
        ...

    def text(self, tokens: np.ndarray) -> str | None:
        """The text of tokens, padding left out; None: they are of no text."""
        ...


class Bytes:
    """UTF-8 bytes plus 1."""

    size = VOCABULARIES["bytes"]
    digest = digest("bytes + 1")

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        return np.frombuffer(_text(value).encode("utf-8"), np.uint8).astype(np.uint16) + 1

    def text(self, tokens: np.ndarray) -> str | None:
        return bytes((tokens[tokens > 0] - 1).tolist()).decode("utf-8", "replace")


class Characters:
    """Characters of an alphabet from 2 on; 1 stands for all others.

    Args:
      alphabet: each character once, in the order of their tokens.
    """

    def __init__(self, alphabet: str):
        self.alphabet = alphabet
        self.size = 2 + len(alphabet)
        self.digest = digest("characters", alphabet)
        self._tokens = np.full(_CODE_POINTS, UNKNOWN, np.min_scalar_type(self.size))
        self._tokens[_code_points(alphabet)] = np.arange(2, self.size)

    @classmethod
    def of(cls, texts: Iterable[str], min_count: int) -> "Characters":
        """The characters that occur at least so often in some texts, by their code points."""
        counts = np.zeros(_CODE_POINTS, np.int64)
        for text in texts:
            points, times = np.unique(_code_points(text), return_counts=True)
            counts[points] += times
        return cls("".join(map(chr, np.flatnonzero(counts >= min_count))))

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        return self._tokens[_code_points(_text(value))]

    def text(self, tokens: np.ndarray) -> str | None:
        known = f"\0\ufffd{self.alphabet}"
        return "".join(known[token] for token in tokens if token)


class Symbols:
    """Words of a fixed set, from 1 on, between spaces; parentheses are none.

    Args:
      symbols: in the order of their tokens.
    """

    def __init__(self, symbols: tuple[str, ...]):
        self.size = 1 + len(symbols)
        self.digest = digest("symbols", symbols)
        self._tokens = {symbol: token for token, symbol in enumerate(symbols, start=1)}

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        words = _text(value).translate(_PARENTHESES).split()
        try:
            tokens = [self._tokens[word] for word in words]
        except KeyError as error:
            raise DataError(
                f"has {error.args[0]!r:.60}; must have {', '.join(self._tokens)} and parentheses"
            ) from None
        return np.array(tokens, np.min_scalar_type(self.size))

    def text(self, tokens: np.ndarray) -> str | None:
        words = (None, *self._tokens)
        return " ".join(str(words[token]) for token in tokens if token)


class Pixels:
    """Intensities of an image, row by row, as they are; 0 is black."""

    size = 256
    digest = digest("pixels")

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        assert isinstance(value, np.ndarray)
        return value.reshape(-1)

    def text(self, tokens: np.ndarray) -> str | None:
        return None


class Intensities:
    """Intensities of an image, row by row, plus 1."""

    size = VOCABULARIES["intensities"]
    digest = digest("intensities + 1")

    def __call__(self, value: str | np.ndarray) -> np.ndarray:
        assert isinstance(value, np.ndarray)
        return value.reshape(-1).astype(np.uint16) + 1

    def text(self, tokens: np.ndarray) -> str | None:
        return None


def make_encoder(config: ClassificationDataConfig, texts: Iterable[str] = ()) -> Encoder:
    """The encoder that a configuration names.

    Args:
      texts: of the training data, from which "characters" are taken, as far as they are read, where
        the configuration has none.
    """
    if config.encoding != "characters":
        return _FIXED[config.encoding]()
    if config.alphabet is not None:
        return Characters(config.alphabet)
    return Characters.of((text[: config.length] for text in texts), config.min_count)


_FIXED: dict[str, Callable[[], Encoder]] = {
    "bytes": Bytes,
    "listops": functools.partial(Symbols, LISTOPS_SYMBOLS),
    "pixels": Pixels,
    "intensities": Intensities,
}


def _text(value: str | np.ndarray) -> str:
    assert isinstance(value, str)
    return value


def _code_points(text: str) -> np.ndarray:
    """Uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
