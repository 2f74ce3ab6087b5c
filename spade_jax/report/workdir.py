"""What a workdir tells of its run."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spade_jax.config import ConfigError, RunError, from_dict
from spade_jax.runs.facts import read_facts
from spade_jax.runs.results import read_predictions, read_results
from spade_jax.runs.scores import best_step, scores_of
from spade_jax.runs.workdir import read_metrics, read_samples
from spade_jax.stored import read_json
from spade_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Contents:
    """The files of a workdir, as far as there are any.

    Attributes:
      workdir: where they are.
      settings: config.json.
      lines: metrics.jsonl.
      results: results.json.
      facts: facts.json.
      samples: samples.jsonl.
      predictions: the files that `results["sets"]` names, by name.
    """

    workdir: Path
    settings: Mapping[str, Any] | None
    lines: Sequence[Mapping[str, Any]]
    results: Mapping[str, Any] | None
    facts: Mapping[str, Any] | None
    samples: Sequence[Mapping[str, Any]]
    predictions: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def step(self) -> int:
        """The last one that is told of."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def best(self) -> int | None:
        """The best step by `train.best_metric`; None without one."""
        if self.settings is None:
            return None
        try:
            config = from_dict(TrainConfig, self.settings["train"])
        except (ConfigError, KeyError):  # Of a version with other settings.
            return None
        evaluations = {line["step"]: line for line in self.lines if line["kind"] == "eval"}
        return best_step(scores_of(evaluations, config), config)

    @property
    def baseline(self) -> float | None:
        """The validation loss of the baseline, where that has one."""
        splits = {} if self.results is None else self.results["splits"]
        if "validation" not in splits:
            return None
        return splits["validation"]["baseline"]["metrics"].get("loss")


def read_workdir(workdir: Path) -> Contents:
    """Reads all there is.

    Raises:
      ConfigError: there is neither metrics.jsonl nor results.json.
      RunError: a file that is damaged.
    """
    if not any((workdir / name).is_file() for name in ("metrics.jsonl", "results.json")):
        raise ConfigError(
            f"RUN = {str(workdir)!r}: holds neither metrics.jsonl nor results.json; must be the "
            "workdir of a run"
        )
    results = read_results(workdir)
    sets = [] if results is None else results.get("sets", [])
    return Contents(
        workdir,
        read_json(
            workdir / "config.json",
            {"train?": dict},
            advice="the next start of the run writes it anew",
            error=RunError,
        ),
        read_metrics(workdir / "metrics.jsonl"),
        results,
        read_facts(workdir),
        read_samples(workdir),
        {own["file"]: read_predictions(workdir / Path(own["file"]).name) for own in sets},
    )
