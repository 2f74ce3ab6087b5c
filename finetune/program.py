"""One fine-tuning run, from a pre-training checkpoint to metrics and predictions."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from finetune import results
from finetune.config import FinetuneConfig
from finetune.evaluation import Evaluator, baseline, combine, measure, metric_names
from finetune.initial import initial_state, plan, resolve_vocabulary
from spade_jax import hosts
from spade_jax.config import require, require_choice
from spade_jax.data.config import DataError
from spade_jax.data.pairs import EvaluationSet, Examined, evaluation_sets, examine, train_pairs
from spade_jax.data.parts import Looked, Part, check_splits, digest_parts, look_through, parts
from spade_jax.data.text_to_text import SPLITS, Split
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.data.writable import Losses, check_labels
from spade_jax.models.build import builder
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.identity import MAY_CHANGE, check_same_data, check_same_run
from spade_jax.runs.lock import only_run
from spade_jax.runs.open import Run, choose, open_run, run_of
from spade_jax.runs.workdir import prepare
from spade_jax.telemetry.screen import make_console, parameter_overview, sharding_table
from spade_jax.training import loop
from spade_jax.training.sharding import data_shard, make_mesh
from spade_jax.training.step import make_trainer

# What a second start in the same workdir may change, beside what any run may.
_MAY_CHANGE_TOO = ("init_from", "task.test")


# What evaluation alone may change besides.
_EVALUATION = ("decoding.", "task.train", "task.validation", "train.")

# What is evaluated at the end.
_EVALUATED: tuple[Split, ...] = ("validation", "test")


def finetune(
    config: FinetuneConfig, workdir: Path, *, eval_only: bool = False, print_sharding: bool = False
) -> int:
    """Runs to the end, or until a signal; returns the exit status.

    Args:
      eval_only: evaluates the run's best parameters, or those of `init_from` where it has none, and
        trains nothing.
      print_sharding: prints where each parameter lies instead, and leaves the workdir alone.

    Raises:
      ConfigError: settings that do not fit the machine, the checkpoint, the data or the workdir.
      RunError: a run that cannot go on.
    """
    with contextlib.ExitStack() as stack:
        return _finetune(config, workdir, stack, eval_only, print_sharding)


def _finetune(
    config: FinetuneConfig,
    workdir: Path,
    stack: contextlib.ExitStack,
    eval_only: bool,
    print_sharding: bool,
) -> int:
    flags = {"--eval_only": eval_only, "--print_sharding": print_sharding}
    # Before anything that differing settings would make fail at one of several processes alone.
    hosts.check_agreement({**dataclasses.asdict(config), **flags})
    console = make_console()
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep)
    begun = checkpoints.newest is not None
    start = None
    if begun:
        start = run_of(checkpoints)
    elif config.init_from is not None:
        start = open_run(Path(config.init_from), "init_from")
    config = _resolve(config, start)
    model_config = config.model
    assert model_config is not None
    vocabulary = load_vocabulary(config.task)
    if start is not None:
        require(
            start.vocabulary_digest == vocabulary.digest,
            "task.vocabulary",
            config.task.vocabulary,
            f"is another vocabulary than that of {start.workdir}; must be the same",
        )
    require(
        vocabulary.size <= model_config.vocab_size,
        "model.vocab_size",
        model_config.vocab_size,
        f"must be at least {vocabulary.size}, the size of task.vocabulary",
    )
    require(
        config.decoding.beams <= vocabulary.size,
        "decoding.beams",
        config.decoding.beams,
        f"must be at most {vocabulary.size}, the size of the vocabulary",
    )
    check_labels(config.task.tasks, vocabulary, config.task.target_length)
    model_config.require_lengths(config.task.input_length, config.task.target_length)

    mesh = make_mesh(config.mesh)
    objective = Seq2Seq(config.loss)
    lengths = config.task.input_length, config.task.target_length
    objective.check(model_config, lengths, mesh)
    trainer = make_trainer(builder(model_config), objective, config.optimizer, config.train, mesh)
    shapes = trainer.state_shapes.params
    if print_sharding:
        console.print(sharding_table(shapes))
        return 0
    settings = dataclasses.asdict(config)
    shard = data_shard(mesh)
    may_change = (*MAY_CHANGE, *_MAY_CHANGE_TOO, *(_EVALUATION if eval_only else ()))
    check_same_run(checkpoints, config, vocabulary.digest, may_change)
    evaluator = Evaluator(
        trainer,
        config.decoding,
        vocabulary,
        config.task.input_length,
        config.task.target_length,
        console,
    )
    if eval_only:
        require(start is not None, "init_from", None, "must name a run to evaluate")
        assert start is not None
        params = start.checkpoints.restore_params(shapes, start.step)
        prepare(workdir)
        stack.enter_context(only_run(workdir, checkpoints, console.print))
        console.print(f"Evaluating the parameters of {start.workdir}, {start.why}.")
        training = examine(config.task) if _has_training(config) else []
        for line in describe_tables(look_through(config.task, _EVALUATED)):
            console.print(line)
        _finish(config, workdir, evaluator, params, start.step, training, console, describe=True)
        return 0

    origin = None
    if start is not None and not begun:
        origin, fresh = plan(start, shapes, config.new_parameters), trainer.init
        trainer = dataclasses.replace(
            trainer, init=lambda: initial_state(start, origin, shapes, fresh)
        )
    contents = _contents(config)
    hosts.check_agreement(contents, "data")
    if (warning := check_same_data(checkpoints, contents)) is not None:
        console.print(warning)
    prepare(workdir)
    stack.enter_context(only_run(workdir, checkpoints, console.print))
    results.read_results(workdir)  # A damaged one is said before anything is trained.
    with console.status("reading the data"):
        # What is wrong with the test set must not show at the end only.
        check_splits(config.task)
        looked = look_through(config.task)
        training = examine(config.task)
        validation = evaluation_sets(config.task, "validation", config.eval_examples)
    require(
        bool(validation),
        "task.validation",
        config.task.validation,
        "must name a table to evaluate on",
    )
    if config.train.best_metric is not None:
        require_choice("train.best_metric", config.train.best_metric, metric_names(validation))
    data = loop.Data(
        train=train_pairs(
            config.task,
            config.train.batch_size // shard.count,
            [part.examples for part in training],
            shard_index=shard.index,
            num_shards=shard.count,
        ),
        evaluate=lambda params: evaluator.metrics(params, validation),
        vocabulary_digest=vocabulary.digest,
        contents=contents,
        step_flops=objective.flops(model_config, config.train.batch_size, lengths),
    )
    if origin is not None and start is not None:
        console.print(f"Beginning with the parameters of {start.workdir}, {start.why}.")
        console.print(origin.table())
    console.print(parameter_overview(shapes, trainer.trainable))
    _describe(config, training, validation, console)
    for line in describe_tables(looked):
        console.print(line)
    for found in looked:
        _describe_losses(found.part, found.losses, console)
    try:
        outcome = loop.train(
            trainer,
            config.train,
            data,
            checkpoints,
            workdir=workdir,
            settings=settings,
            console=console,
        )
        if not outcome.finished:
            return 0
        choice = choose(checkpoints, outcome.scores, config.train, at_hand=outcome.step)
        step = choice.step
        done = results.read_results(workdir)
        made_of = _made_of(config, step)
        if done is not None and made_of.items() <= done.items():
            console.print(results.results_table(done))
            return 0
        params = outcome.state.params
        if step != outcome.step:
            params = checkpoints.restore_params(shapes, step)
        console.print(f"Evaluating the parameters of {choice.why}.")
        _finish(config, workdir, evaluator, params, step, training, console)
        return 0
    finally:
        checkpoints.close()


def _has_training(config: FinetuneConfig) -> bool:
    """Whether evaluation alone finds training data, which only its baseline needs."""
    try:
        return bool(parts(config.task, "train"))
    except DataError:
        return False


def _resolve(config: FinetuneConfig, start: Run | None) -> FinetuneConfig:
    """The configuration with what it takes from the checkpoint filled in."""
    model = config.model or (start.model if start else None)
    assert model is not None  # One of the two is there, or the configuration is none.
    changes: dict[str, Any] = {"dropout_rate": config.dropout_rate, "dtype": config.dtype}
    model = dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})
    return dataclasses.replace(config, model=model, task=resolve_vocabulary(config.task, start))


def _describe(
    config: FinetuneConfig,
    training: Sequence[Examined],
    validation: Sequence[EvaluationSet],
    console: Console,
) -> None:
    """How much data there is, and how much of it is cut off."""
    task = config.task
    for found in training:
        of = "" if found.looked_at == found.examples else f" of {found.looked_at:,} of them"
        console.print(
            f"{found.part.name}: {found.examples:,} training examples;{of} {found.cut_inputs:,} "
            f"inputs are cut off at {task.input_length} tokens, {found.cut_targets:,} targets at "
            f"{task.target_length}"
        )
        _describe_losses(found.part, found.losses, console)
    for examples in validation:
        console.print(
            f"{examples.part.name}: {len(examples.pairs):,} validation examples; "
            f"{examples.cut_inputs:,} inputs are cut off, {examples.cut_targets:,} targets are "
            "longer than a prediction can be"
        )
        _describe_losses(examples.part, examples.losses, console)


def _describe_losses(part: Part, losses: Losses, console: Console) -> None:
    """What the vocabulary takes from a set."""
    for sentence in losses.sentences():
        # Texts of people: what looks like markup in them is none.
        console.print(f"{part.name}, {part.split}: {sentence}", markup=False, highlight=False)


def describe_tables(looked: Sequence[Looked]) -> Iterator[str]:
    """What of local tables a person should know: rows left out, and rows of several sets."""
    for found in looked:
        name = f"{found.part.name}, {found.part.split}"
        if found.broken:
            more = f" and {len(found.broken) - 3:,} more" if len(found.broken) > 3 else ""
            yield (
                f"{name}: {len(found.broken):,} rows have fewer columns than the header and are "
                f"left out, as TFDS leaves them out ({'; '.join(found.broken[:3])}{more})"
            )
        for before, count in found.repeated.items():
            if count:
                yield (
                    f"{name}: the inputs of {count:,} of {found.rows:,} rows are, letter by "
                    f"letter, those of rows of task.{before} as well"
                )


def _contents(config: FinetuneConfig) -> dict[str, dict[str, str]]:
    """What the run learns from and is measured by: of each setting the files, with digests."""
    splits: tuple[Split, ...] = ("train", "validation")
    return {
        f"task.{split}": {
            name: value
            for part in digest_parts(config.task, split).values()
            for name, value in part.items()
        }
        for split in splits
    }


def _made_of(config: FinetuneConfig, step: int) -> dict[str, Any]:
    """What results depend on, as results.json has it: where that differs, they are stale."""
    # Of the training data only the baselines are made.
    splits = SPLITS if _has_training(config) else _EVALUATED
    return {
        "task": config.task.name,
        "step": step,
        "decoding": dataclasses.asdict(config.decoding),
        "sources": {split: digest_parts(config.task, split) for split in splits},
    }


def _finish(
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
    made_of = _made_of(config, step)
    require(
        any(made_of["sources"][split] for split in _EVALUATED),
        "task.validation",
        config.task.validation,
        "must name a table to evaluate",
    )
    predicted: list[tuple[Sequence[EvaluationSet], Sequence[Sequence[str]]]] = []
    splits = {}
    for split in _EVALUATED:
        sets = evaluation_sets(config.task, split)
        for examples in sets if describe else ():
            _describe_losses(examples.part, examples.losses, console)
        predictions = [evaluator.predict(params, examples) for examples in sets]
        predicted.append((sets, predictions))
        labelled = {examples.part.name for examples in sets if examples.labelled}
        if labelled:
            own = [p for s, p in zip(sets, predictions) if s.part.name in labelled]
            sets = [s for s in sets if s.part.name in labelled]
            splits[split] = _measured(evaluator, params, sets, own, training)
    summary = made_of | {"splits": splits}
    # An earlier results.json stays until all is there that replaces what it tells of.
    files = [path for each in predicted for path in results.write_split(workdir, *each)]
    results.write_results(workdir, summary)
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
    return {
        "metrics": evaluator.measure(params, sets, predictions),
        "examples": sum(len(examples.pairs) for examples in sets),
        "cut_inputs": sum(examples.cut_inputs for examples in sets),
        "changed_targets": sum(examples.losses.changed_targets.count for examples in sets),
        "baseline": {
            "method": " or ".join(dict.fromkeys(method for method, _ in guesses)) or "none",
            "metrics": combine(guessed, known) if known else {},
        },
    }
