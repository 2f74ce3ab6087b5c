"""Text from bytes, and where it is none."""

from spade_jax.data.config import DataError


def decode_utf8(data: bytes, where: str, *, first: bool = False) -> str:
    """The text that bytes are.

    Args:
      where: what messages call them.
      first: whether a file begins with them: a byte order mark there is none of its text.

    Raises:
      DataError: bytes that are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        # The bytes that it counts are those behind a byte order mark.
        byte = error.object[error.start]
        raise DataError(
            f"{where}: is not UTF-8 (byte 0x{byte:02x} at {error.start}); must be UTF-8, which "
            "`iconv -f latin1 -t utf-8` makes of Latin-1, for instance"
        ) from None
