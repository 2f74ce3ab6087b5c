"""What a command decodes: the lines of a text file, or the rows of a table by a run's own task."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from spade_jax import hosts
from spade_jax.config import from_dict, require, require_choice
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.tables import kind_of, read_rows
from spade_jax.data.text_to_text.task import TextToText
from spade_jax.decoding.config import BeamConfig
from spade_jax.decoding.lines import Line, one_line
from spade_jax.decoding.outputs import Documents, Form
from spade_jax.decoding.tables import (
    Rows,
    check_columns,
    column_names,
    named_columns,
    read_inputs,
    table_form,
    untouched,
)

# Texts of a run that has learned a task, as they stand.
NO_TASK = "none"


def of_lines(lines: Iterable[Line], total: int | None) -> Documents:
    """A line for each line."""
    return Documents(lines, total, Form(lambda number, text: one_line(text) + "\n"))


def of_table(options: argparse.Namespace, kind: str, settings: Mapping[str, Any]) -> Documents:
    """A row for each row, with one column more.

    Args:
      options: of the command line.
      kind: of the table, one of `KINDS`.
      settings: the run's.

    Raises:
      ConfigError: columns that are not there, or are there already, and a task that is none.
      DataError: a table that cannot be read, a row that makes no input, or one that the output
        cannot hold.
    """
    file, config = options.input, _task_config(settings, options.task)
    task = None if config is None else _task(config, options.task)
    rows = _rows(file, kind, config, task, options.inputs)
    there = column_names(rows)
    named = named_columns(options.inputs, there)
    if task is None:
        task, named = untouched(named), None
    if named is None:
        check_columns(file, there, task)
    lines = read_inputs(rows, task, named)
    form = table_form(file, rows, options.output_column, kind, output_kind(options, kind))
    return Documents(lines, len(lines), form)


def as_fine_tuned(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of decoding: those that are given, and else those that a run predicted with."""
    own: dict[str, Any] = {}
    if "task" in settings:
        own["max_length"] = from_dict(TaskConfig, settings["task"], "task").target_length
        beams = from_dict(BeamConfig, settings.get("decoding", {}), "decoding")
        if not given.get("temperature"):  # Beam search draws nothing.
            own |= {"beams": beams.beams, "length_penalty": beams.length_penalty}
    return own | {**given}


def output_kind(options: argparse.Namespace, kind: str) -> str:
    """What a table's output is: what its name says, and else what the table is.

    Raises:
      ConfigError: Parquet on the standard output, or a compressed file.
    """
    output = options.output
    kind = kind if output is None else kind_of(output) or kind
    require(
        output is not None or kind != ".parquet",
        "--output",
        output,
        "must be a file, for Parquet is no text",
    )
    require(
        output is None or not output.endswith(".gz"),
        "--output",
        output,
        "must not end in .gz: outputs are not compressed",
    )
    return kind


def _task_config(settings: Mapping[str, Any], named: str | None) -> TaskConfig | None:
    """What a run has learned; None where texts stand as they are."""
    if named == NO_TASK:
        return None
    if "task" not in settings:
        require(named is None, "--task", named, "must be none: the run was not fine-tuned")
        return None
    return from_dict(TaskConfig, settings["task"], "task")


def _task(config: TaskConfig, named: str | None) -> TextToText:
    """The task that a table's rows are of."""
    tasks = {task.name: task for task in config.tasks}
    if named is None:
        require(
            len(tasks) == 1,
            "--task",
            named,
            f"must be one of {', '.join(tasks)}, which the run was fine-tuned on, or {NO_TASK}",
        )
        return next(iter(tasks.values()))
    require_choice("--task", named, (*tasks, NO_TASK))
    return tasks[named]


def _rows(
    file: str, kind: str, config: TaskConfig | None, task: TextToText | None, inputs: str | None
) -> Rows:
    """All rows of a table, as fine-tuning reads it."""
    broken: list[str] | None = [] if task is not None and task.leaves_out_broken else None
    header = () if config is None else config.header
    own = () if task is None else task.columns
    columns = own if inputs is None else tuple(inputs.split(","))
    rows = list(read_rows(file, header, columns, broken, kind))
    if broken and hosts.is_first():
        print(
            f"{file}: {len(broken)} rows are left out, for they have fewer columns than the "
            f"header; the first is {broken[0]}",
            file=sys.stderr,
        )
    return rows
