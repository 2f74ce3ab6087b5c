"""One fine-tuning run, from a pre-training checkpoint to metrics and predictions."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx
from rich.console import Console

from finetune import results
from finetune.config import FinetuneConfig
from finetune.evaluation import Evaluator, baseline, combine, measure
from finetune.initial import initial_state, plan, resolve_vocabulary
from spade_jax.config import ConfigError, require
from spade_jax.data.config import DataError
from spade_jax.data.pairs import (
    EvaluationSet,
    Examined,
    check_tables,
    evaluation_sets,
    examine,
    parts,
    train_pairs,
)
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.training import loop
from spade_jax.training.checkpoints import Checkpoints
from spade_jax.training.run import Run, open_run
from spade_jax.training.screen import make_console, parameter_overview
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer
from spade_jax.training.workdir import check_writable

# What a second start in the same workdir may change, beside what the loop allows.
_MAY_CHANGE = ("eval_only", "init_from", "task.test")


# What evaluation alone may change besides.
_EVALUATION = ("decoding.", "task.train", "task.validation", "train.")


def finetune(config: FinetuneConfig, workdir: Path) -> int:
    """Runs to the end, or until a signal; returns the exit status.

    Raises:
      ConfigError: settings that do not fit the machine, the checkpoint, the data or the workdir.
      RunError: a run that cannot go on.
    """
    console = make_console()
    start = None if config.init_from is None else open_run(Path(config.init_from), "init_from")
    config = _resolve(config, start)
    model_config = config.model
    assert model_config is not None
    vocabulary = load_vocabulary(config.task)
    require(
        start is None or start.vocabulary_digest == vocabulary.digest,
        "task.vocabulary",
        config.task.vocabulary,
        f"is another vocabulary than that of {config.init_from}; must be the same",
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
    _check_lengths(config)

    mesh = make_mesh(config.mesh)

    def create(rngs: nnx.Rngs) -> EncoderDecoder:
        return EncoderDecoder(model_config, rngs)

    trainer = make_trainer(create, config.optimizer, config.loss, config.train, mesh)
    shapes = trainer.state_shapes.params
    if start is not None:
        origin, fresh = plan(start, shapes, config.new_parameters), trainer.init
        trainer = dataclasses.replace(
            trainer, init=lambda: initial_state(start, origin, shapes, fresh)
        )

    settings = dataclasses.asdict(config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep)
    may_change = (*loop.MAY_CHANGE, *_MAY_CHANGE, *(_EVALUATION if config.eval_only else ()))
    loop.check_same_run(checkpoints, settings, vocabulary.digest, may_change)
    check_writable(workdir)
    evaluator = Evaluator(
        trainer,
        config.decoding,
        vocabulary,
        config.task.input_length,
        config.task.target_length,
        console,
    )
    try:
        if config.eval_only:
            if checkpoints.newest is None:
                require(start is not None, "init_from", None, "must name a run to evaluate")
                params, step = trainer.init().params, 0 if start is None else start.step
            else:
                step = open_run(workdir, "workdir").step
                params = checkpoints.restore_params(shapes, step)
            origin_of = workdir if checkpoints.newest is not None else config.init_from
            console.print(f"Evaluating the parameters of {origin_of}, step {step}.")
            training = examine(config.task) if _has_training(config) else []
            _finish(config, workdir, evaluator, params, step, training, console)
            return 0

        with console.status("reading the data"):
            training = examine(config.task, config.train.batch_size)
            validation = evaluation_sets(config.task, "validation", config.eval_examples)
            # What is wrong with it must not show at the end only.
            check_tables(config.task, "test")
        require(
            bool(validation),
            "task.validation",
            config.task.validation,
            "must name a table to evaluate on",
        )
        data = loop.Data(
            train=train_pairs(
                config.task, config.train.batch_size, [part.examples for part in training]
            ),
            evaluate=lambda params: evaluator.metrics(params, validation),
            vocabulary_digest=vocabulary.digest,
        )
        if start is not None and checkpoints.newest is None:
            console.print(origin.table())
        console.print(parameter_overview(shapes, trainer.trainable))
        _describe(config, training, validation, console)
        outcome = loop.run(
            trainer,
            config.train,
            data,
            checkpoints,
            workdir=workdir,
            settings=settings,
            console=console,
        )
        if not outcome.finished:
            console.print(
                f"Stopped and saved at step {outcome.step}; the same command goes on from there."
            )
            return 0
        step = outcome.step if outcome.best_step is None else outcome.best_step
        done = results.read_results(workdir)
        # Those of another step are from an evaluation in between.
        if outcome.was_finished and done is not None and done["step"] == step:
            console.print(results.results_table(done))
            console.print(
                f"This run is finished, at step {outcome.step}. For more, raise train.steps in a "
                "new workdir."
            )
            return 0
        params = outcome.state.params
        if step != outcome.step:
            params = checkpoints.restore_params(shapes, step)
            console.print(
                f"Evaluating the parameters of step {step}, the best by {config.train.best_metric}."
            )
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
    return dataclasses.replace(
        config,
        model=model,
        task=resolve_vocabulary(config.task, start),
        decoding=dataclasses.replace(config.decoding, max_length=config.task.target_length),
    )


def _check_lengths(config: FinetuneConfig) -> None:
    assert config.model is not None
    for stack, length in (
        ("encoder", config.task.input_length),
        ("decoder", config.task.target_length),
    ):
        positions = getattr(config.model, stack).max_positions
        require(
            positions is None or positions >= length,
            f"task.{'input' if stack == 'encoder' else 'target'}_length",
            length,
            f"must be at most {positions}, the learned positions of the model's {stack}",
        )


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
    for examples in validation:
        console.print(
            f"{examples.part.name}: {len(examples.pairs):,} validation examples; "
            f"{examples.cut_inputs:,} inputs are cut off"
        )


def _finish(
    config: FinetuneConfig,
    workdir: Path,
    evaluator: Evaluator,
    params: Any,
    step: int,
    training: Sequence[Examined],
    console: Console,
) -> None:
    """Evaluates all there is; writes predictions, submissions and, last, results.json."""
    # Where results.json is, everything is, and of one step.
    results.remove_results(workdir)
    by_task = {found.part.task.name: found for found in training}
    splits: dict[str, Mapping[str, Any]] = {}
    files = []
    for split in ("validation", "test"):
        sets = evaluation_sets(config.task, split)
        own, base, guessed, method = [], [], [], "none"
        for examples in sets:
            predictions = evaluator.predict(params, examples)
            path = results.predictions_path(workdir, examples, len(sets) > 1)
            results.write_predictions(path, examples, predictions)
            files.append(path)
            submission = results.write_submission(workdir / "submission", examples, predictions)
            files += [] if submission is None else [submission]
            if not examples.labelled:
                continue
            own.append({"loss": evaluator.loss(params, examples)} | measure(examples, predictions))
            found = by_task.get(examples.part.task.name)
            method, guesses = baseline(examples, found)
            if guesses:
                base.append(measure(examples, guesses))
                guessed.append(examples)
        labelled = [examples for examples in sets if examples.labelled]
        if own:
            splits[split] = {
                "metrics": combine(own, labelled),
                "examples": sum(len(examples.pairs) for examples in labelled),
                "cut_inputs": sum(examples.cut_inputs for examples in labelled),
                "baseline": {
                    "method": method,
                    "metrics": combine(base, guessed) if base else {},
                },
            }
    if not files:
        raise ConfigError(
            f"task.validation = {config.task.validation!r}: must name a table to evaluate"
        )
    summary = {"task": config.task.name, "step": step, "splits": splits}
    results.write_results(workdir, summary)
    console.print(results.results_table(summary))
    console.print(f"written: {', '.join(map(str, files))} and {workdir / 'results.json'}")
