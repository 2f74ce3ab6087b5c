"""Files of text and of JSON lines, plain or gzip, read in Python.

TensorFlow would take the end of a truncated gzip file for the end of the text.
"""

import contextlib
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from spade_jax.data.config import DataError


def read_lines(path: str) -> Iterator[bytes]:
    """Lines of a file without their ends.

    Raises:
      DataError: it cannot be read, or is gzip and damaged or truncated.
    """
    with _opened(path) as stream:
        for line in stream:
            yield line.rstrip(b"\r\n")


def read_file(path: str) -> bytes:
    """All of a file; raises what `read_lines` does."""
    with _opened(path) as stream:
        return stream.read()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with epath.Path(path).open("rb") as file:
            yield gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
    except GeneratorExit:
        raise  # When Python ends, the modules that the clauses below name are gone.
    except EOFError:
        raise DataError(f"{path}: is truncated; must be a whole gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is damaged or no gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_json(line: str, where: str) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
      DataError: it is none, or is nested more deeply or has longer numbers than Python reads.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: is not JSON ({error.msg} at column {error.colno}); must be an object such "
            'as {"name": "…"}'
        ) from None
    except RecursionError:
        raise DataError(f"{where}: is JSON of too many levels; must be an object") from None
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise DataError(
            f"{where}: has a number of more than {digits} digits; must have shorter ones"
        ) from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: is a JSON {type(record).__name__}; must be an object")
    return record
