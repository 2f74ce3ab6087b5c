"""Tables in, tables out: what a task makes of rows, and how they stand in a file with outputs."""

import csv
import functools
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from spade_jax.config import ConfigError, nearest, require
from spade_jax.data.config import DataError
from spade_jax.data.text_to_text.formats import Row, RowError, labelled_fields, prefixed, text
from spade_jax.data.text_to_text.task import TextToText
from spade_jax.decoding.lines import Line, one_line
from spade_jax.decoding.outputs import Form

Rows = list[tuple[str, Row]]

# The column of a text where neither the command line nor a task names one.
_TEXT = ("text",)


def untouched(columns: tuple[str, ...] | None) -> TextToText:
    """The task of texts as they stand; several columns are each headed by their name."""
    columns = columns or _TEXT
    write = labelled_fields("", columns) if len(columns) > 1 else prefixed("", columns[0])
    return TextToText("none", columns, "", write, text, (), may_be_empty=columns)


def column_names(rows: Rows) -> list[str]:
    """Of all rows, in the order in which they come up."""
    return list(dict.fromkeys(name for _, row in rows for name in row))


def named_columns(option: str | None, there: Sequence[str]) -> tuple[str, ...] | None:
    """The columns that `--inputs` names; a name that is a column's is that column.

    Raises:
      ConfigError: one that is not there.
    """
    if option is None:
        return None
    names = (option,) if option in there else tuple(name.strip() for name in option.split(","))
    for name in names:
        if name not in there:
            raise ConfigError(f"--inputs = {option!r}: no column {name!r}{nearest(name, there)}")
    return names


def read_inputs(rows: Rows, task: TextToText, named: tuple[str, ...] | None) -> list[Line]:
    """The input that a task makes of each row.

    Args:
      named: the columns that stand for the task's, in their order; None: they have its names.

    Raises:
      ConfigError: more or fewer than the task has.
      DataError: a row that makes no input.
    """
    require(
        named is None or len(named) == len(task.columns),
        "--inputs",
        ",".join(named or ()),
        f"must be {len(task.columns)} columns, which stand for {', '.join(task.columns)}",
    )
    return [Line(where, _input(where, row, task, named)) for where, row in rows]


def check_columns(file: str, there: Sequence[str], task: TextToText) -> None:
    """Raises DataError where no row has a column that the task's inputs are made of."""
    for column in task.columns:
        if not {column, *task.aliases.get(column, ())} & {*there}:
            raise DataError(
                f"{file}: has no column {column!r}, of which inputs are made; must have it, or "
                f"--inputs must name what stands for it{nearest(column, there)}"
            )


def _input(where: str, row: Row, task: TextToText, named: tuple[str, ...] | None) -> str:
    try:
        if named is None:
            return task.input(row)
        for name in named:
            if name not in row:
                raise RowError(f"has no column {name!r}")
        return task.input({column: row[name] for column, name in zip(task.columns, named)})
    except RowError as error:
        raise DataError(f"{where}: {error}") from None


def table_form(file: str, rows: Rows, column: str, source: str, kind: str) -> Form:
    """How a table stands in a file with one column more, which outputs are in.

    Args:
      file: the table.
      column: the name of that column.
      source: the kind of the table, one of `KINDS`.
      kind: of the output.

    Raises:
      ConfigError: the table has such a column.
      DataError: what the output cannot hold.
    """
    names = column_names(rows)
    require(
        column not in names,
        "--output_column",
        column,
        f"is a column of {file} already; must be another name",
    )
    if kind == ".parquet":
        table = _arrow_of(file) if source == kind else _arrow(file, rows, names)
        return Form(lambda *_: "", save=lambda *given: _save(table, column, *given))
    if kind == ".jsonl":
        form = Form(functools.partial(_json_entry, rows, column))
    else:
        write = _csv_line if kind == ".csv" else _tsv_line
        entry = functools.partial(_delimited_entry, rows, names, write)
        form = Form(entry, head=write([*names, column], file))
    for number in range(len(rows)):
        form.entry(number, "")  # What is wrong with one must not show half-way.
    return form


def _json_entry(rows: Rows, column: str, number: int, output: str) -> str:
    where, row = rows[number]
    return _json({**row, column: output}, where) + "\n"


def _delimited_entry(
    rows: Rows, names: list[str], write: Callable[[list[str], str], str], number: int, output: str
) -> str:
    where, row = rows[number]
    cells = [_cell(row.get(name), f"{where}, column {name!r}") for name in names]
    if write is _tsv_line:
        output = one_line(output).replace("\t", " ")
    return write([*cells, output], where)


def _cell(value: Any, where: str) -> str:
    """A value in a table of texts; what is no text stands there as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value, where)


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise DataError(
            f"{where}: has what JSON cannot hold ({error}); --output must end in .parquet"
        ) from None


def _csv_line(cells: list[str], where: str) -> str:
    line = io.StringIO()
    # Python quotes a field with CR only where lines end with it.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _tsv_line(cells: list[str], where: str) -> str:
    for cell in cells:
        if {*"\t\r\n"} & {*cell}:
            raise DataError(
                f"{where}: has a tab or a line break in {cell!r:.60}, which TSV cannot hold; "
                "--output must end in .csv, .jsonl or .parquet"
            )
    return "\t".join(cells) + "\n"


def _arrow_of(file: str) -> Any:
    """A Parquet file as it is, with its types."""
    import pyarrow.parquet

    with Path(file).open("rb") as opened:
        return pyarrow.parquet.read_table(opened)


def _arrow(file: str, rows: Rows, names: list[str]) -> Any:
    """A table for Parquet, whose columns are each of one type."""
    import pyarrow

    columns = {}
    for name in names:
        try:
            columns[name] = pyarrow.array([row.get(name) for _, row in rows])
        except (pyarrow.ArrowException, OverflowError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{file}: column {name!r} has values of several types, which Parquet cannot hold "
                f"({reason:.100}); --output must end in .jsonl"
            ) from None
    return pyarrow.table(columns)


def _save(table: Any, column: str, output: IO[bytes], texts: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    whole = pyarrow.BufferOutputStream()  # A pipe has no places, which its writer asks for.
    written = table.append_column(column, pyarrow.array(texts, pyarrow.string()))
    pyarrow.parquet.write_table(written, whole)
    output.write(whole.getvalue())
