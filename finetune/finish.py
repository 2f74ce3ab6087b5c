"""What a run ends with: its best parameters, evaluated on all there is."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from finetune import results
from finetune.config import FinetuneConfig
from finetune.describe import describe_losses
from finetune.evaluation import (
    Evaluator,
    baseline,
    combine,
    measure,
    measure_with_intervals,
)
from spade_jax.config import require
from spade_jax.data.config import DataError
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet, evaluation_sets
from spade_jax.data.text_to_text.inspection import Examined
from spade_jax.data.text_to_text.splits import digest_parts, parts
from spade_jax.data.text_to_text.task import SPLITS, Split
from spade_jax.runs.results import write_results

# What is evaluated at the end.
EVALUATED: tuple[Split, ...] = ("validation", "test")


def has_training(config: FinetuneConfig) -> bool:
    """Whether evaluation alone finds training data, which only its baseline needs."""
    try:
        return bool(parts(config.task, "train"))
    except DataError:
        return False


def made_of(config: FinetuneConfig, step: int) -> dict[str, Any]:
    """What results depend on, as results.json has it: where that differs, they are stale."""
    # Of the training data only the baselines are made.
    splits = SPLITS if has_training(config) else EVALUATED
    return {
        "task": config.task.name,
        "step": step,
        "decoding": dataclasses.asdict(config.decoding),
        "sources": {split: digest_parts(config.task, split) for split in splits},
    }


def finish(
    config: FinetuneConfig,
    workdir: Path,
    evaluator: Evaluator,
    params: Any,
    step: int,
    training: Sequence[Examined],
    console: Console,
    *,
    describe: bool = False,
) -> None:
    """Evaluates all there is; writes predictions, submissions and, last, results.json.

    Args:
      describe: says as well what the vocabulary takes from each set.
    """
    # Before they are read: what changes in between is evaluated anew by the next start.
    basis = made_of(config, step)
    require(
        any(basis["sources"][split] for split in EVALUATED),
        "task.validation",
        config.task.validation,
        "must name a table to evaluate",
    )
    predicted: list[tuple[Sequence[EvaluationSet], Sequence[Sequence[str]]]] = []
    splits, contents = {}, []
    for split in EVALUATED:
        sets = evaluation_sets(config.task, split)
        for examples in sets if describe else ():
            describe_losses(examples.part, examples.losses, console)
        predictions = [evaluator.predict(params, examples) for examples in sets]
        predicted.append((sets, predictions))
        contents += results.contents(sets)
        labelled = {examples.part.name for examples in sets if examples.labelled}
        if labelled:
            own = [p for s, p in zip(sets, predictions) if s.part.name in labelled]
            sets = [s for s in sets if s.part.name in labelled]
            splits[split] = _measured(evaluator, params, sets, own, training)
    summary = basis | {"splits": splits, "sets": contents}
    # An earlier results.json stays until all is there that replaces what it tells of.
    files = [path for each in predicted for path in results.write_split(workdir, *each)]
    write_results(workdir, summary)
    if splits:
        console.print(results.results_table(summary))
    console.print(f"written: {', '.join(map(str, files))} and {workdir / 'results.json'}")


def _measured(
    evaluator: Evaluator,
    params: Any,
    sets: Sequence[EvaluationSet],
    predictions: Sequence[Sequence[str]],
    training: Sequence[Examined],
) -> Mapping[str, Any]:
    """One split's entry in results.json: the model's metrics and the baseline's."""
    by_task = {found.part.task.name: found for found in training}
    known = [examples for examples in sets if examples.part.task.name in by_task]
    guesses = [baseline(examples, by_task[examples.part.task.name]) for examples in known]
    guessed = [measure(examples, texts) for examples, (_, texts) in zip(known, guesses)]
    measured, intervals = measure_with_intervals(sets, predictions)
    return {
        "metrics": evaluator.with_loss(params, sets, measured),
        "intervals": intervals,
        "examples": sum(len(examples.pairs) for examples in sets),
        "cut_inputs": sum(examples.cut_inputs for examples in sets),
        "changed_targets": sum(examples.losses.changed_targets.count for examples in sets),
        "baseline": {
            "method": " or ".join(dict.fromkeys(method for method, _ in guesses)) or "none",
            "metrics": combine(guessed, known) if known else {},
        },
    }
