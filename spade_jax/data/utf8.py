"""Text from bytes, and where it is none."""

import contextlib
from collections.abc import Iterator, Sequence

from spade_jax.data.config import DataError

# Of files in one message.
_MOST_NAMED = 50
_ADVICE = "must be UTF-8, which `iconv -f latin1 -t utf-8` makes of Latin-1, for instance"


class EncodingDataError(DataError):
    """Bytes that are not UTF-8.

    Attributes:
      where: they stand.
      byte: which one it is.
    """

    def __init__(self, where: str, byte: str):
        super().__init__(f"{where}: is not UTF-8 ({byte}); {_ADVICE}")
        self.where, self.byte = where, byte


def decode_utf8(data: bytes, where: str, *, first: bool = False) -> str:
    """The text that bytes are.

    Args:
      where: what messages call them.
      first: whether a file begins with them: a byte order mark there is none of its text.

    Raises:
      EncodingDataError: bytes that are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        # The bytes that it counts are those behind a byte order mark.
        byte = error.object[error.start]
        raise EncodingDataError(where, f"byte 0x{byte:02x} at {error.start}") from None


@contextlib.contextmanager
def gathered(found: list[EncodingDataError]) -> Iterator[None]:
    """Adds what is not UTF-8 to `found`, so that other files are looked at before it is raised."""
    try:
        yield
    except EncodingDataError as error:
        found.append(error)


def raise_gathered(found: Sequence[EncodingDataError]) -> None:
    """Raises DataError, one for all that was gathered, unless that is nothing."""
    if len(found) == 1:
        raise found[0]
    if found:
        named = [f"{error.where} ({error.byte})" for error in found[:_MOST_NAMED]]
        more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
        raise DataError(f"{'; '.join(named)}{more}: are not UTF-8; {_ADVICE}")
