"""One pre-training run, from its configuration to what the model makes of unseen data."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from pretrain.config import PretrainConfig
from pretrain.ending import show
from pretrain.learning import Learning, learning_of, with_data_settings
from spade_jax import hosts
from spade_jax.models.build import builder
from spade_jax.report.page import write_report
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.facts import write_facts
from spade_jax.runs.identity import MAY_CHANGE, check_same_data, check_same_run
from spade_jax.runs.lock import only_run
from spade_jax.runs.open import Run, choose, open_run, run_of
from spade_jax.runs.workdir import prepare
from spade_jax.telemetry.screen import make_console, parameter_overview, sharding_table
from spade_jax.telemetry.trackers import check_tracker
from spade_jax.training import loop
from spade_jax.training.evaluation import evaluate
from spade_jax.training.initial import (
    beginning_with,
    check_vocabulary,
    plan,
    resolve_model,
    tell,
)
from spade_jax.training.sharding import data_shard, make_mesh
from spade_jax.training.step import Trainer, make_trainer


def pretrain(
    config: PretrainConfig, workdir: Path, *, print_sharding: bool = False, extend: bool = False
) -> int:
    """Runs to the end, or until a signal; returns the exit status.

    Args:
      extend: settings that are others than those that the workdir's run had are on purpose.
      print_sharding: prints where each parameter lies instead, and leaves the workdir alone.

    Raises:
      ConfigError: settings that do not fit the machine, the vocabulary, the data or the workdir.
      RunError: a run that cannot go on.
    """
    with contextlib.ExitStack() as stack:
        return _pretrain(config, workdir, stack, print_sharding, extend)


def _pretrain(
    config: PretrainConfig,
    workdir: Path,
    stack: contextlib.ExitStack,
    print_sharding: bool,
    extend: bool,
) -> int:
    """`pretrain`; the stack holds the workdir's lock."""
    # Before anything that differing settings would make fail at one of several processes alone.
    flags = {"--print_sharding": print_sharding, "--extend": extend}
    hosts.check_agreement({**dataclasses.asdict(config), **flags})
    check_tracker(config.train.tracker)
    console = make_console()
    mesh = make_mesh(config.mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep)
    start = None
    if checkpoints.newest is None and config.init_from is not None:
        start = open_run(Path(config.init_from), "init_from")
    config = _resolve(config, checkpoints, start)
    settings = dataclasses.asdict(config)
    learning = learning_of(config)
    if start is not None:
        check_vocabulary(start, learning.vocabulary_digest, *learning.vocabulary_setting)
    trainer = _make_trainer(config, learning, mesh)
    if print_sharding:
        console.print(sharding_table(trainer.state_shapes.params))
        return 0
    changes = check_same_run(
        checkpoints,
        config,
        learning.vocabulary_digest,
        (*MAY_CHANGE, "init_from"),
        extend=extend,
    )
    origin = None
    if start is not None:
        origin = plan(start, trainer.state_shapes.params, ())
        trainer = beginning_with(start, origin, trainer)
    contents = learning.contents()
    hosts.check_agreement(contents, "data")
    if (warning := check_same_data(checkpoints, contents, changes)) is not None:
        console.print(warning)
    prepare(workdir)
    stack.enter_context(only_run(workdir, checkpoints, console.print))
    data = _read_data(config, trainer, learning, contents)
    if start is not None and origin is not None:
        tell(start, origin, console)
    _describe(config, workdir, trainer, learning, contents, console)
    try:
        outcome = loop.train(
            trainer,
            config.train,
            data,
            checkpoints,
            workdir=workdir,
            settings=settings,
            console=console,
            changes=changes,
        )
    finally:
        checkpoints.close()
    if not outcome.finished:
        return 0
    _conclude(config, workdir, trainer, learning, checkpoints, outcome, data, console)
    return 0


def _describe(
    config: PretrainConfig,
    workdir: Path,
    trainer: Trainer,
    learning: Learning,
    contents: Mapping[str, Mapping[str, str]],
    console: Console,
) -> None:
    """Says, and writes down, what is about to be trained on what."""
    mesh, params = trainer.mesh, trainer.state_shapes.params
    notes = list(learning.describe())
    for sentence in notes:
        console.print(sentence, markup=False)
    write_facts(
        workdir,
        program="pretrain",
        data=(),
        notes=notes,
        files=contents,
        params=params,
        trainable=trainer.trainable,
        mesh=mesh,
    )
    console.print(parameter_overview(params, trainer.trainable))
    console.print(
        f"{mesh.size} {mesh.devices.flat[0].platform} device(s), "
        f"{jax.process_count()} process(es), "
        f"{config.train.batch_size} x ({' + '.join(map(str, config.data.lengths))}) "
        f"tokens a step, {config.train.steps} steps; results go to {workdir}"
    )


def _conclude(
    config: PretrainConfig,
    workdir: Path,
    trainer: Trainer,
    learning: Learning,
    checkpoints: Checkpoints,
    outcome: loop.Outcome,
    data: loop.Data,
    console: Console,
) -> None:
    """Says what a finished run has learned, and writes its results and its report."""
    assert outcome.evaluation is not None  # A run that is finished ends with one.
    assert data.baseline is not None
    if not outcome.was_finished:
        if config.samples:
            show(data.samples(outcome.state.params), learning.sample_names, console)
        console.print(learning.result(outcome.evaluation, data.baseline))
        console.print(f"loss curve: {workdir / 'loss.png'}")
    _judge(config, workdir, trainer, learning, checkpoints, outcome, data.baseline, console)
    write_report(workdir, console)


def _judge(
    config: PretrainConfig,
    workdir: Path,
    trainer: Trainer,
    learning: Learning,
    checkpoints: Checkpoints,
    outcome: loop.Outcome,
    baseline: float,
    console: Console,
) -> None:
    """Writes what the best parameters are worth, and says what they and the last ones are worth on
    a test set, if there is one."""
    best = choose(checkpoints, outcome.scores, config.train, at_hand=outcome.step)
    last_one = best.step == outcome.step

    def best_params() -> Any:
        if last_one:
            return outcome.state.params
        return checkpoints.restore_params(trainer.state_shapes.params, best.step)

    assert outcome.evaluation is not None
    evaluation = outcome.evaluations.get(best.step, outcome.evaluation)
    ending = learning.ending(trainer, best_params, evaluation, baseline)
    ending.write(workdir, best.step)
    if ending.said is None:
        return
    if not last_one:
        last = learning.ending(trainer, lambda: outcome.state.params, outcome.evaluation, baseline)
        console.print(f"{best.why}: {ending.said}")
        console.print(f"step {outcome.step}, the last: {last.said}")
    else:
        console.print(f"{best.why}, and the last: {ending.said}")


def _resolve(config: PretrainConfig, checkpoints: Checkpoints, start: Run | None) -> PretrainConfig:
    """The configuration with its model and all of its data's settings: a run that goes on has its
    own."""
    before = start
    if before is None and checkpoints.newest is not None:
        before = run_of(checkpoints)
    model = resolve_model(config.model, before, config.dropout_rate, config.dtype)
    return with_data_settings(dataclasses.replace(config, model=model), before)


def _make_trainer(config: PretrainConfig, learning: Learning, mesh: Mesh) -> Trainer:
    """The model, bound to the devices.

    Raises:
      ConfigError: lengths or a mesh that do not fit the model.
    """
    objective = learning.objective
    objective.check(config.own_model, config.data.lengths, mesh)
    return make_trainer(builder(config.own_model), objective, config.optimizer, config.train, mesh)


def _read_data(
    config: PretrainConfig,
    trainer: Trainer,
    learning: Learning,
    contents: Mapping[str, Mapping[str, str]],
) -> loop.Data:
    """The data as the loop takes it: this process's part of the batches."""
    shard = data_shard(trainer.mesh)
    limit = config.train.eval_batches
    validation = learning.validation(
        trainer.eval_batch_size // shard.count, limit, shard.index, shard.count
    )
    train = learning.train(config.train.batch_size // shard.count, shard.index, shard.count)
    # Whole batches, for what each process computes by itself.
    every = learning.validation(trainer.eval_batch_size, limit)
    return loop.Data(
        train=train,
        evaluate=lambda params: evaluate(trainer, params, validation),
        vocabulary_digest=learning.vocabulary_digest,
        contents=contents,
        samples=learning.sampler(trainer) if config.samples else lambda params: (),
        baseline=learning.baseline(every),
        step_flops=trainer.objective.flops(
            config.own_model, config.train.batch_size, config.data.lengths
        ),
    )
