"""What a run leaves in its workdir besides checkpoints.

config.json      the configuration as used
metrics.jsonl    one JSON object a line, of kind "train" or "eval", each step once
samples.jsonl    what the model made of a few inputs at each evaluation, one JSON object a line
loss.png         the loss curves
metrics.png      what evaluations measure besides
tensorboard/     the same numbers and samples as TensorBoard events
facts.json       what the run is of: data, devices, versions (`runs.facts`)
results.json     what it ends with (`runs.results`)
predictions-SPLIT.jsonl
                 input, target and prediction of each example
report.html      all of this on one page
tracker.json     which run this is in Weights & Biases or MLflow
compiled/        compiled programs, for the next start
run.lock         while a run is at work there
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax

from spade_jax import files, hosts
from spade_jax.config import ConfigError, RunError
from spade_jax.stored import read_json_lines
from spade_jax.telemetry.curves import draw_loss, draw_metrics
from spade_jax.telemetry.events import EventWriter
from spade_jax.telemetry.samples import Sample, as_markdown
from spade_jax.telemetry.trackers import Tracker

# A line of metrics.jsonl.
_LINE = {
    "kind": ("train", "eval", "change"),
    "step": int,
    "loss?": float,
    "changes?": {str: list},
    str: float,
}
# A line of samples.jsonl.
_SAMPLE = {"step": int, "input": str, "target": (str, None), "prediction": str, "note?": str}


def prepare(workdir: Path) -> None:
    """Makes the directory, tries to write there, and has compiled programs kept there.

    They are kept elsewhere, or nowhere, where JAX has been told so, as by its environment variables
    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE. All processes look there, the first
    one writes.

    Raises:
      ConfigError: it cannot be made or written to.
    """
    # Named at random: processes on several machines may have the same id.
    probe = files.unfinished(workdir / "probe")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_text("writable")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"workdir = {str(workdir)!r}: must be a directory that can be written to "
            f"({error.strerror})"
        ) from None
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        # The path is part of what programs are found by: the same from every working directory.
        folder = (workdir / "compiled").absolute()
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # What cannot be read or written there is compiled again; nobody has to know.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


class Records:
    """The numbers of a run, step by step, on disk; of several processes the first writes them.

    Attributes:
      evaluations: metrics by the steps that have an evaluation, in order.
      tracker: where else numbers go; None for nowhere.
    """

    def __init__(self, workdir: Path, step: int, settings: Mapping[str, Any]):
        """Opens the files of a run that goes on after `step`, and drops what lies beyond it."""
        self._workdir = workdir
        self._path = workdir / "metrics.jsonl"
        lines = read_metrics(self._path) if step else []
        lines = [line for line in lines if line["step"] <= step]
        self._changes = [line for line in lines if line["kind"] == "change"]
        self.evaluations: dict[int, Mapping[str, float]] = {
            line["step"]: line for line in lines if line["kind"] == "eval"
        }
        stored = read_samples(workdir) if step else []
        # Those of an evaluation are written before its metrics.
        self._samples = [line for line in stored if line["step"] in self.evaluations]
        replace_file(workdir / "config.json", json.dumps(settings, indent=2) + "\n")
        replace_file(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        self._write_samples()
        self.tracker: Tracker | None = None
        self._file: TextIO | None = None
        if not hosts.is_first():
            return
        self._file = self._path.open("a")
        self._events = EventWriter(workdir / "tensorboard", step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds one line, in one piece and at once."""
        if kind == "eval":
            self.evaluations[step] = dict(values)
        if self._file is None:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()
        scalars = {f"{kind}/{name}": value for name, value in values.items()}
        self._events.scalars(step, scalars)
        if self.tracker is not None:
            self.tracker.scalars(step, scalars)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Adds those of an evaluation."""
        if self._file is None or not samples:
            return
        self._samples += [sample.line(step) for sample in samples]
        self._write_samples()
        self._events.texts(
            step, {f"samples/{i}": as_markdown(sample) for i, sample in enumerate(samples, start=1)}
        )

    def _write_samples(self) -> None:
        path = self._workdir / "samples.jsonl"
        if self._samples or path.exists():
            lines = (json.dumps(line, ensure_ascii=False) for line in self._samples)
            replace_file(path, "".join(f"{line}\n" for line in lines))

    def change(self, step: int, changes: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds what is otherwise from this step on: settings, each with its value before and now.
        A start that was interrupted before it was saved is told of once."""
        line = {"kind": "change", "step": step, "changes": {n: list(c) for n, c in changes.items()}}
        line = json.loads(json.dumps(line))
        if line in self._changes or self._file is None:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def draw(self, baseline: float | None, best: int | None = None) -> None:
        """Draws loss.png, with the baseline's loss as a line, and metrics.png; the best step has a
        mark."""
        if self._file is not None:
            lines = read_metrics(self._path)
            draw_loss(lines, self._workdir / "loss.png", baseline, best)
            draw_metrics(lines, self._workdir / "metrics.png", best)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._events.close()
        if self.tracker is not None:
            self.tracker.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, without what an interrupted run wrote of its last one.

    Raises:
      RunError: one of them is no such line.
    """
    advice = "put back a copy of the file, or delete that line, whose numbers are then forgotten"
    lines = read_json_lines(path, _LINE, advice=advice, error=RunError)
    for number, line in enumerate(lines, start=1):
        needed = "changes" if line["kind"] == "change" else "loss"
        if needed not in line:
            raise RunError(f"{path}: line {number}: is damaged ({needed} is missing); {advice}")
    return lines


def read_samples(workdir: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl; none without one.

    Raises:
      RunError: one of them is no such line.
    """
    advice = "put back a copy of the file, or delete it, and its samples are forgotten"
    return read_json_lines(workdir / "samples.jsonl", _SAMPLE, advice=advice, error=RunError)


def read_evaluations(path: Path, up_to: int) -> dict[int, dict[str, Any]]:
    """The evaluations in a metrics.jsonl up to a step, by step."""
    lines = read_metrics(path)
    return {v["step"]: v for v in lines if v["kind"] == "eval" and v["step"] <= up_to}


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that an interruption leaves either the old or the new one. Of several
    processes, which all have the same to write, the first one does."""
    if hosts.is_first():
        with files.atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
