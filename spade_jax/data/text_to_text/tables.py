"""The rows of local tables: TSV, CSV, JSON lines and Parquet, by the names of their columns."""

import csv
import json
import re
from collections.abc import Iterator, Sequence

from etils import epath

from spade_jax.data.config import DataError
from spade_jax.data.text_files import read_json, read_lines
from spade_jax.data.text_to_text.formats import Row
from spade_jax.data.text_to_text.values import shortened
from spade_jax.data.utf8 import EncodingDataError, decode_utf8, gathered, raise_gathered

# Of a field of a CSV file, which Python's reader would limit to 131,072: papers are longer.
_MOST_CHARACTERS = 2**31 - 1

KINDS = (".tsv", ".csv", ".jsonl", ".parquet")


def read_tables(
    paths: Sequence[str],
    header: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    broken: list[str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """The rows of several files, one after the other; see `read_rows`.

    Raises:
      DataError: as there, but of all files that are not UTF-8 one that names them.
    """
    for number, path in enumerate(paths, start=1):
        found: list[EncodingDataError] = []
        with gathered(found):
            yield from read_rows(path, header, columns, broken)
        if found:
            for later in paths[number:]:
                with gathered(found):
                    for _ in read_rows(later, header, columns, broken):
                        pass
            raise_gathered(found)


def read_rows(
    path: str,
    header: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    broken: list[str] | None = None,
    kind: str | None = None,
) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with where it stands: `my/train.tsv, line 3`.

    In TSV files quotes are letters, as in GLUE's; in CSV files they hold fields together. A blank
    line of those is no row, but in a table of one column, before its last row, it is one with an
    empty cell; and so is there `""`, which is how programs write that.

    Args:
      path: its ending tells what it is, before a ".gz".
      header: names of the columns of a TSV or CSV file whose first line has none.
      columns: a first line that holds all of these is a header even so.
      broken: where given, a row of fewer columns than the header is left out, and where it stands
        is added here before the next row comes.
      kind: one of `KINDS`, whatever the path ends in.

    Raises:
      DataError: a file of another kind, that cannot be read, is damaged, or has no rows.
    """
    kind = kind or kind_of(path)
    if kind is None:
        raise DataError(
            f"{path}: is no table; its name must end in {', '.join(KINDS)} (all but the last also "
            "with .gz)"
        )
    if kind == ".parquet":
        rows = _parquet_rows(path)
    elif kind == ".jsonl":
        rows = _json_rows(path)
    else:
        rows = _delimited_rows(path, header, columns, broken, quoted=kind == ".csv")
    empty = True
    for row in rows:
        yield row
        empty = False
    if empty:
        raise DataError(f"{path}: has no rows; must have at least one")


def kind_of(path: str) -> str | None:
    """Which of `KINDS` a path's ending tells, before a ".gz"; None if it tells none."""
    if path.endswith(".parquet.gz"):
        return None
    return next((kind for kind in KINDS if path.removesuffix(".gz").endswith(kind)), None)


def _text_lines(path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        yield where, decode_utf8(line, where, first=number == 1)


def _delimited_rows(
    path: str,
    header: tuple[str, ...],
    columns: tuple[str, ...],
    broken: list[str] | None,
    quoted: bool,
) -> Iterator[tuple[str, Row]]:
    fields = _quoted_fields(path) if quoted else _separated_fields(path)
    begun = False
    blank: list[str] = []
    for where, values in fields:
        if not values:
            blank.append(where)
            continue
        first, begun = not begun, True
        if first and (not header or (columns and {*columns} <= {*values})):
            header = tuple(values)
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise DataError(f"{where}: names column {twice[0]!r} twice")
            blank.clear()
            continue
        if len(header) == 1:
            yield from ((line, {header[0]: ""}) for line in blank)
        blank.clear()
        if broken is not None and len(values) < len(header):
            broken.append(where)
            continue
        if len(values) != len(header):
            raise DataError(
                f"{where}: has {len(values)} columns; must have {len(header)}, as the header has"
            )
        yield where, dict(zip(header, values))


def _separated_fields(path: str) -> Iterator[tuple[str, list[str]]]:
    """Of a TSV file; none of a blank line."""
    for where, line in _text_lines(path):
        # Alone in its row, an empty field is quoted even by programs that quote nothing else.
        yield where, [""] if line == '""' else line.split("\t") if line else []


def _quoted_fields(path: str) -> Iterator[tuple[str, list[str]]]:
    """Of a CSV file; none of a blank line. A row may go over several, and stands where it ends."""
    csv.field_size_limit(_MOST_CHARACTERS)
    reader = csv.reader((line + "\n" for _, line in _text_lines(path)), strict=True)
    try:
        for values in reader:
            yield f"{path}, line {reader.line_num}", values
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from None


def _json_rows(path: str) -> Iterator[tuple[str, Row]]:
    for where, line in _text_lines(path):
        if not line.strip():
            continue
        row = read_json(line, where)
        if "\\u" in line:
            _check_unicode(row, where)
        yield where, row


def _check_unicode(row: Row, where: str) -> None:
    """Escapes such as `\\ud800` can be half a letter, which no text can be."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: is not Unicode text ({error.reason})") from None


def _parquet_rows(path: str) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with epath.Path(path).open("rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            # Arrow's name of float32 is "float", of float16 "halffloat"; float64 is "double".
            floats = {f.name: f.type for f in table.schema_arrow if "float" in str(f.type)}
            for batch in table.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    row |= {name: shortened(row[name], kind) for name, kind in floats.items()}
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:  # The system's, not pyarrow's.
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        reason = re.split(r"[.\n]", str(error))[0]
        raise DataError(f"{path}: is damaged or no Parquet file ({reason})") from None
