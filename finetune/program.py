"""One fine-tuning run, from a pre-training checkpoint to metrics and predictions."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from finetune import results
from finetune.config import FinetuneConfig
from finetune.describe import (
    describe_tables,
    table_of_sets,
)
from finetune.evaluation import Evaluator
from finetune.finish import EVALUATED, finish, has_training, made_of
from finetune.sets import Sets, contents_of, read_sets
from spade_jax import hosts
from spade_jax.config import EncoderDecoderConfig, of_kind, require
from spade_jax.data.text_to_text.inspection import Examined, examine, look_through
from spade_jax.data.text_to_text.training_batches import train_pairs
from spade_jax.data.text_to_text.vocabulary_coverage import check_labels
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.models.build import builder
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.report.page import write_report
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.facts import write_facts
from spade_jax.runs.identity import MAY_CHANGE, Changes, check_same_data, check_same_run
from spade_jax.runs.lock import only_run
from spade_jax.runs.open import Run, choose, open_run, run_of
from spade_jax.runs.results import read_results
from spade_jax.runs.workdir import prepare
from spade_jax.telemetry.screen import make_console, parameter_overview, sharding_table
from spade_jax.telemetry.trackers import check_tracker
from spade_jax.training import loop
from spade_jax.training.initial import (
    beginning_with,
    check_vocabulary,
    plan,
    resolve_model,
    resolve_vocabulary,
    tell,
)
from spade_jax.training.sharding import data_shard, make_mesh
from spade_jax.training.step import Trainer, make_trainer

# What a second start in the same workdir may change, beside what any run may.
_MAY_CHANGE_TOO = ("init_from", "task.test")

# What evaluation alone may change besides.
_EVALUATION = ("decoding.", "task.train", "task.validation", "train.")


def finetune(
    config: FinetuneConfig,
    workdir: Path,
    *,
    eval_only: bool = False,
    print_sharding: bool = False,
    extend: bool = False,
) -> int:
    """Runs to the end, or until a signal; returns the exit status.

    Args:
      extend: settings that are others than those that the workdir's run had are on purpose.
      eval_only: evaluates the run's best parameters, or those of `init_from` where it has none, and
        trains nothing.
      print_sharding: prints where each parameter lies instead, and leaves the workdir alone.

    Raises:
      ConfigError: settings that do not fit the machine, the checkpoint, the data or the workdir.
      RunError: a run that cannot go on.
    """
    with contextlib.ExitStack() as stack:
        return _finetune(config, workdir, stack, eval_only, print_sharding, extend)


def _finetune(
    config: FinetuneConfig,
    workdir: Path,
    stack: contextlib.ExitStack,
    eval_only: bool,
    print_sharding: bool,
    extend: bool,
) -> int:
    """`finetune`; the stack holds the workdir's lock."""
    flags = {"--eval_only": eval_only, "--print_sharding": print_sharding, "--extend": extend}
    # Before anything that differing settings would make fail at one of several processes alone.
    hosts.check_agreement({**dataclasses.asdict(config), **flags})
    check_tracker(config.train.tracker)
    console = make_console()
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep)
    begun = checkpoints.newest is not None
    start = None
    if begun:
        start = run_of(checkpoints)
    elif config.init_from is not None:
        start = open_run(Path(config.init_from), "init_from")
    config = _resolve(config, start)
    vocabulary = load_vocabulary(config.task)
    config = dataclasses.replace(config, model=_model_of(config).following(vocabulary.size))
    _check_vocabulary(config, vocabulary, start)
    trainer = _make_trainer(config)
    if print_sharding:
        console.print(sharding_table(trainer.state_shapes.params))
        return 0
    may_change = (*MAY_CHANGE, *_MAY_CHANGE_TOO, *(_EVALUATION if eval_only else ()))
    changes = check_same_run(
        checkpoints, config, vocabulary.digest, may_change, trains=not eval_only, extend=extend
    )
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
        params = start.checkpoints.restore_params(trainer.state_shapes.params, start.step)
        prepare(workdir)
        stack.enter_context(only_run(workdir, checkpoints, console.print))
        _evaluate_only(config, workdir, start, params, evaluator, console)
        write_report(workdir, console)
        return 0
    origin = None
    if start is not None and not begun:
        origin = plan(start, trainer.state_shapes.params, config.new_parameters)
        trainer = beginning_with(start, origin, trainer)
    contents = contents_of(config)
    hosts.check_agreement(contents, "data")
    if (warning := check_same_data(checkpoints, contents, changes)) is not None:
        console.print(warning)
    prepare(workdir)
    stack.enter_context(only_run(workdir, checkpoints, console.print))
    read_results(workdir)  # A damaged one is said before anything is trained.
    sets = read_sets(config, console)
    data = _loop_data(config, trainer, evaluator, sets, vocabulary.digest, contents)
    if origin is not None and start is not None:
        tell(start, origin, console)
    _describe(config, workdir, trainer, sets, contents, console)
    if _train(
        config, workdir, trainer, data, checkpoints, evaluator, sets.training, console, changes
    ):
        write_report(workdir, console)
    return 0


def _describe(
    config: FinetuneConfig,
    workdir: Path,
    trainer: Trainer,
    sets: Sets,
    contents: Mapping[str, Mapping[str, str]],
    console: Console,
) -> None:
    """Says, and writes down, what is about to be trained on what."""
    params = trainer.state_shapes.params
    console.print(parameter_overview(params, trainer.trainable))
    sets.describe(config.task, console)
    write_facts(
        workdir,
        program="finetune",
        data=table_of_sets(sets.training, sets.validation),
        notes=sets.notes(config.task),
        files=contents,
        params=params,
        trainable=trainer.trainable,
        mesh=trainer.mesh,
    )


def _check_vocabulary(config: FinetuneConfig, vocabulary: Vocabulary, start: Run | None) -> None:
    """Raises ConfigError for a vocabulary that the checkpoint, the model or the task cannot use."""
    model_config = _model_of(config)
    if start is not None:
        check_vocabulary(start, vocabulary.digest, "task.vocabulary", config.task.vocabulary)
    model_config.require_tokens(vocabulary.size, "task.vocabulary")
    require(
        config.decoding.beams <= vocabulary.size,
        "decoding.beams",
        config.decoding.beams,
        f"must be at most {vocabulary.size}, the size of the vocabulary",
    )
    check_labels(config.task.tasks, vocabulary, config.task.target_length)


def _make_trainer(config: FinetuneConfig) -> Trainer:
    """The model, bound to this machine's devices.

    Raises:
      ConfigError: lengths or a mesh that do not fit the model or the machine.
    """
    model_config, lengths = _model_of(config), _lengths(config)
    model_config.require_lengths(*lengths)
    mesh = make_mesh(config.mesh)
    objective = Seq2Seq(config.loss)
    objective.check(model_config, lengths, mesh)
    return make_trainer(builder(model_config), objective, config.optimizer, config.train, mesh)


def _evaluate_only(
    config: FinetuneConfig,
    workdir: Path,
    start: Run,
    params: Any,
    evaluator: Evaluator,
    console: Console,
) -> None:
    """Evaluates the parameters of a run, and trains nothing."""
    console.print(f"Evaluating the parameters of {start.workdir}, {start.why}.")
    training = examine(config.task) if has_training(config) else []
    for line in describe_tables(look_through(config.task, EVALUATED)):
        console.print(line)
    finish(config, workdir, evaluator, params, start.step, training, console, describe=True)


def _loop_data(
    config: FinetuneConfig,
    trainer: Trainer,
    evaluator: Evaluator,
    sets: Sets,
    vocabulary_digest: str,
    contents: Mapping[str, Mapping[str, str]],
) -> loop.Data:
    """The data as the loop takes it: this process's part of the training batches."""
    shard = data_shard(trainer.mesh)
    return loop.Data(
        train=train_pairs(
            config.task,
            config.train.batch_size // shard.count,
            [part.examples for part in sets.training],
            shard_index=shard.index,
            num_shards=shard.count,
        ),
        evaluate=lambda params: evaluator.metrics(params, sets.validation),
        vocabulary_digest=vocabulary_digest,
        contents=contents,
        samples=lambda params: evaluator.samples(sets.validation, config.samples),
        step_flops=trainer.objective.flops(
            _model_of(config), config.train.batch_size, _lengths(config)
        ),
    )


def _train(
    config: FinetuneConfig,
    workdir: Path,
    trainer: Trainer,
    data: loop.Data,
    checkpoints: Checkpoints,
    evaluator: Evaluator,
    training: Sequence[Examined],
    console: Console,
    changes: Changes,
) -> bool:
    """Trains, and evaluates the best parameters where that is not done yet; returns whether the run
    is at its end."""
    try:
        outcome = loop.train(
            trainer,
            config.train,
            data,
            checkpoints,
            workdir=workdir,
            settings=dataclasses.asdict(config),
            console=console,
            changes=changes,
        )
        if not outcome.finished:
            return False
        choice = choose(checkpoints, outcome.scores, config.train, at_hand=outcome.step)
        step = choice.step
        done = read_results(workdir)
        basis = made_of(config, step)
        if done is not None and basis.items() <= done.items():
            console.print(results.results_table(done))
            return True
        params = outcome.state.params
        if step != outcome.step:
            params = checkpoints.restore_params(trainer.state_shapes.params, step)
        console.print(f"Evaluating the parameters of {choice.why}.")
        finish(config, workdir, evaluator, params, step, training, console)
        return True
    finally:
        checkpoints.close()


def _model_of(config: FinetuneConfig) -> EncoderDecoderConfig:
    """The model of a configuration that is resolved."""
    assert config.model is not None
    return of_kind(config.model, EncoderDecoderConfig)


def _lengths(config: FinetuneConfig) -> tuple[int, int]:
    """The most tokens of an input and of a target."""
    return config.task.input_length, config.task.target_length


def _resolve(config: FinetuneConfig, start: Run | None) -> FinetuneConfig:
    """The configuration with what it takes from the checkpoint filled in."""
    model = of_kind(
        resolve_model(config.model, start, config.dropout_rate, config.dtype), EncoderDecoderConfig
    )
    return dataclasses.replace(config, model=model, task=resolve_vocabulary(config.task, start))
