"""Predictions for whole evaluation sets, and what they are worth."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from spade_jax.data.metrics import by_example, score
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet
from spade_jax.data.text_to_text.inspection import Examined
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import BeamConfig, DecodingConfig
from spade_jax.decoding.generate import bucket_length, make_generator
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.report.bootstrap import RESAMPLES, interval, resampled
from spade_jax.telemetry.samples import Sample
from spade_jax.telemetry.screen import progress
from spade_jax.training import sharding
from spade_jax.training.evaluation import evaluate
from spade_jax.training.step import Trainer


class Evaluator:
    """Evaluates parameters; equal ones always alike, whatever the batch size.

    Args:
      trainer: the model, bound to its devices.
      decoding: how predictions are written.
      input_length, target_length: the most tokens of each, their ends included.

    Attributes:
      predicted: of each set, what the latest `metrics` predicted.
    """

    predicted: Sequence[Sequence[str]] = ()

    def __init__(
        self,
        trainer: Trainer,
        decoding: BeamConfig,
        vocabulary: Vocabulary,
        input_length: int,
        target_length: int,
        console: Console,
    ):
        self._trainer = trainer
        self._vocabulary = vocabulary
        self._batch_size = trainer.eval_batch_size
        self._input_length = input_length
        self._target_length = target_length
        self._console = console
        self._shard = sharding.data_shard(trainer.mesh)
        self._generate = make_generator(
            trainer.model,
            DecodingConfig(**dataclasses.asdict(decoding), max_length=target_length),
            end_id=vocabulary.eos_id,
            vocab_size=vocabulary.size,
            batch_size=self._batch_size,
            input_length=input_length,
            mesh=trainer.mesh,
        )

    def predict(self, params: Any, examples: EvaluationSet) -> list[str]:
        """The text that the model writes for each example, in their order."""
        predictions = [""] * len(examples.pairs)
        what = f"predicting {examples.part.name}, {examples.part.split}"
        with progress(self._console, what, len(predictions)) as advance:
            for rows in self._batches(examples):
                outputs = self._generate(params, [examples.inputs[row] for row in rows])
                for row, output in zip(rows, outputs):
                    predictions[row] = self._vocabulary.text(output)
                advance(len(rows))
        return predictions

    def loss(self, params: Any, examples: EvaluationSet) -> float:
        """Nats per target token, given the tokens before."""
        return evaluate(self._trainer, params, self._padded(examples))["loss"]

    def metrics(self, params: Any, sets: Sequence[EvaluationSet]) -> dict[str, float]:
        """Loss, each set's metrics, and their mean as `score`; see `combine`."""
        self.predicted = [self.predict(params, examples) for examples in sets]
        own = [measure(examples, texts) for examples, texts in zip(sets, self.predicted)]
        return self.with_loss(params, sets, own)

    def with_loss(
        self, params: Any, sets: Sequence[EvaluationSet], measured: Sequence[dict[str, float]]
    ) -> dict[str, float]:
        """As `metrics`, of predictions that are measured."""
        return combine(
            [
                {"loss": self.loss(params, examples)} | own
                for examples, own in zip(sets, measured, strict=True)
            ],
            sets,
        )

    def samples(self, sets: Sequence[EvaluationSet], count: int) -> list[Sample]:
        """The first `count` examples of each set, with what the latest `metrics` predicted."""
        return [
            Sample(pair.input, pair.target or None, text)
            for examples, texts in zip(sets, self.predicted, strict=True)
            for pair, text in zip(examples.pairs[:count], texts)
        ]

    def _batches(self, examples: EvaluationSet) -> Iterator[list[int]]:
        """Rows of about equal lengths together, for the least padding."""
        order = iter(sorted(range(len(examples.pairs)), key=lambda i: len(examples.inputs[i])))
        while batch := list(itertools.islice(order, self._batch_size)):
            yield batch

    def _padded(self, examples: EvaluationSet) -> Iterator[dict[str, np.ndarray]]:
        """Batches as `evaluate` takes them."""
        for rows in self._batches(examples):
            longest = max(len(examples.inputs[row]) for row in rows)
            length = bucket_length(longest, self._input_length, self._trainer.mesh)
            inputs = np.zeros((self._batch_size, length), np.int32)
            targets = np.zeros((self._batch_size, self._target_length), np.int32)
            for i, row in enumerate(rows):
                inputs[i, : len(examples.inputs[row])] = examples.inputs[row]
                targets[i, : len(examples.targets[row])] = examples.targets[row]
            batch = Seq2SeqBatch.unpacked(inputs, targets).named()
            yield {name: self._shard.of(rows) for name, rows in batch.items()}


def measure(
    examples: EvaluationSet,
    predictions: Sequence[str],
    values: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, float]:
    """The task's metrics of predictions, against the targets as the vocabulary writes them.

    Args:
      values: what `data.metrics.by_example` gives of these, where it is known already.
    """
    task = examples.part.task
    return score(task.metrics, examples.references, predictions, task.labels, values)


def measure_with_intervals(
    sets: Sequence[EvaluationSet], predictions: Sequence[Sequence[str]]
) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """The metrics of each set, and 95 % bootstrap intervals of those that `combine` makes of them.

    The intervals are of other examples, not of other runs: each set's are resampled by themselves.
    """
    measured, drawn = [], []
    for examples, own in zip(sets, predictions, strict=True):
        task, targets = examples.part.task, examples.references
        values = by_example(task.metrics, targets, own)
        measured.append(measure(examples, own, values))
        drawn.append(resampled(task.metrics, targets, own, task.labels, values))
    each = [
        combine([{m: v[i] for m, v in own.items()} for own in drawn], sets)
        for i in range(RESAMPLES)
    ]
    return measured, {name: interval([values[name] for values in each]) for name in each[0]}


def prefixes(sets: Sequence[EvaluationSet]) -> list[str]:
    """What the metrics of each set begin with: those of several sets are `set/metric`."""
    return [f"{examples.part.name}/" if len(sets) > 1 else "" for examples in sets]


def metric_names(sets: Sequence[EvaluationSet]) -> tuple[str, ...]:
    """What `Evaluator.metrics` gives of these sets."""
    own = (
        f"{prefix}{metric}"
        for prefix, examples in zip(prefixes(sets), sets)
        for metric in examples.part.task.metrics
    )
    return ("loss", *own, "score")


def combine(metrics: Sequence[dict[str, float]], sets: Sequence[EvaluationSet]) -> dict[str, float]:
    """Metrics of several sets under one roof.

    `score` is the mean over tasks of the mean of a task's metrics (GLUE's), `loss` the mean over
    sets.
    """
    values = {"loss": statistics.fmean(m["loss"] for m in metrics)} if "loss" in metrics[0] else {}
    for own, prefix in zip(metrics, prefixes(sets), strict=True):
        values |= {f"{prefix}{name}": value for name, value in own.items() if name != "loss"}
    by_task: dict[str, list[float]] = {}
    for own, examples in zip(metrics, sets):
        task = examples.part.task
        by_task.setdefault(task.name, []).append(statistics.fmean(own[m] for m in task.metrics))
    values["score"] = statistics.fmean(map(statistics.fmean, by_task.values()))
    return values


def baseline(examples: EvaluationSet, training: Examined) -> tuple[str, list[str]]:
    """What one writes who has learned nothing: the name of the method, and its predictions.

    Measured by ROUGE that is the input's beginning, as many words as a target has in training on
    average; else the target most common in training.
    """
    task = examples.part.task
    if not any(metric.startswith("rouge") for metric in task.metrics):
        return "most common target", [training.commonest] * len(examples.pairs)
    words = max(1, round(training.target_words))
    return "beginning of the input", [
        " ".join(pair.input.removeprefix(task.prefix).split()[:words]) for pair in examples.pairs
    ]
