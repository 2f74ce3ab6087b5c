"""A training step compiled for devices that need not be here, and what it takes of each."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from spade_jax import partition
from spade_jax.aot import hlo
from spade_jax.aot.hlo_program import Program
from spade_jax.aot.step_time import StepTime, step_time
from spade_jax.aot.topology import Topology
from spade_jax.config import require_choice
from spade_jax.models.build import builder
from spade_jax.objectives.base import Objective
from spade_jax.places import place
from spade_jax.training import sharding
from spade_jax.training.config import OptimizerConfig, TrainConfig
from spade_jax.training.step import Tree, abstract_model, make_trainer


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      arguments: train state and batch.
      outputs: what does not lie where an argument lay; donated state does.
      temporaries: activations, gradients, gathered parameters, at their peak.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Report:
    """What one device needs and does in a step.

    Attributes:
      memory: None where the compiler found that the program does not fit, and says no more.
      too_large: the compiler's words then, else empty.
      flops: of matmuls, as compiled; see `hlo`.
      formula_flops: the objective's own, shared out evenly; None for a part of a step.
      bytes_accessed: XLA's estimate, with loops counted once; None where it has none.
      collectives: each with how often it runs.
      seconds: that tracing and compiling took.
      time: of a step; None where nobody estimates it.
    """

    memory: Memory | None
    too_large: str
    flops: int
    formula_flops: float | None
    bytes_accessed: float | None
    collectives: tuple[tuple[hlo.Collective, int], ...]
    seconds: float
    time: StepTime | None = None

    def fits(self, memory: int | None) -> bool | None:
        """Whether it fits into so many bytes; None where they are not known."""
        if self.memory is None:
            return False
        return None if memory is None else self.memory.total <= memory

    def totals(self) -> dict[tuple[str, tuple[str, ...]], tuple[int, int]]:
        """Collectives a step and their bytes, by kind and mesh axes; the most bytes first."""
        sums: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
        for collective, times in self.collectives:
            key = collective.kind, collective.axes
            number, size = sums.get(key, (0, 0))
            sums[key] = number + times, size + times * collective.bytes
        return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def batch_shapes(
    objective: Objective, rows: int, lengths: Sequence[int], mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Of the arrays of a batch that is not packed, each with its sharding."""
    where = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)
        for name, array in objective.batch.types(rows, lengths).items()
    }


def compile_step(
    model: Any,
    objective: Objective,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    lengths: Sequence[int],
    mesh: Mesh,
    *,
    part: str = "step",
    quick: bool = False,
    timed: Topology | None = None,
) -> Report:
    """Compiles a training step, or the gradient of a part of it, and analyses it.

    Args:
      model: its configuration.
      lengths: of the sequences of the objective's batches, in tokens.
      part: "step" is all of it; others are the objective's `parts`.
      quick: tells the compiler to try less hard; memory is then somewhat overestimated.
      timed: the topology that the mesh is of, where the time of a step is to be estimated; that
        must be one of TPUs, and without `quick`, whose times are false.

    Raises:
      ConfigError: a model or batch that the mesh does not divide, or no such part.
    """
    start = time.perf_counter()
    require_choice("part", part, ("step", *objective.parts))
    objective.check(model, lengths, mesh)
    sharding.check_batch(train, mesh)
    shapes = batch_shapes(objective, train.batch_size, lengths, mesh)
    create = builder(model)
    function: Any
    arguments: tuple[Any, ...]
    if part == "step":
        trainer = make_trainer(create, objective, optimizer, train, mesh)
        function, arguments = trainer.train_step, (trainer.state_shapes, shapes)
        formula = objective.flops(model, train.batch_size, lengths) / mesh.size
    else:
        function, parameters = _gradient(create, objective, part, mesh)
        arguments = (parameters, shapes)
        formula = None
    # Only compilers for TPUs know these options.
    quick = quick and mesh.devices.flat[0].platform == "tpu"
    options = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
    try:
        compiled = function.lower(*arguments).compile(compiler_options=options if quick else None)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        words = re.sub(r"^RESOURCE_EXHAUSTED: ", "", str(error)).splitlines()[0]
        return Report(None, words, 0, formula, None, (), time.perf_counter() - start)
    return analyse(compiled, mesh, formula, time.perf_counter() - start, timed)


def analyse(
    compiled: Any,
    mesh: Mesh,
    formula: float | None,
    seconds: float,
    timed: Topology | None = None,
) -> Report:
    """What the compiler says of a compiled program, and what its optimised HLO holds; `timed` as
    of `compile_step`."""
    sizes = compiled.memory_analysis()
    program = Program.of(compiled.as_text())
    cost = hlo.cost(program, dict(mesh.shape))
    return Report(
        memory=Memory(
            arguments=sizes.argument_size_in_bytes,
            outputs=sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
            temporaries=sizes.temp_size_in_bytes,
            code=sizes.generated_code_size_in_bytes,
        ),
        too_large="",
        flops=cost.flops,
        formula_flops=formula,
        bytes_accessed=(compiled.cost_analysis() or {}).get("bytes accessed"),
        collectives=cost.collectives,
        seconds=seconds,
        time=None if timed is None else step_time(program, cost.collectives, timed, mesh, formula),
    )


def largest_batch(fits: Callable[[int], bool], unit: int) -> int:
    """The largest multiple of `unit` rows that fits, by doubling and bisection; 0 if none does."""
    good, bad = 0, 1
    while fits(bad * unit):
        good, bad = bad, 2 * bad
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle * unit) else (good, middle)
    return good * unit


def _gradient(
    create: Callable[[nnx.Rngs], nnx.Module], objective: Objective, part: str, mesh: Mesh
) -> tuple[Any, Tree]:
    """The gradient of a part of an update by all parameters, and the shapes of these."""
    graphdef, parameters, _ = abstract_model(create, mesh)

    def total(params: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        model = nnx.merge(graphdef, params)
        with partition.on_mesh(mesh), place("rest of the model"):
            return objective.parts[part](model, objective.batch.of(batch), jax.random.key(0))

    places = jax.tree.map(lambda shape: shape.sharding, parameters)
    gradient = jax.jit(
        jax.grad(total),
        in_shardings=(places, sharding.batch_sharding(mesh)),
        out_shardings=places,
    )
    return gradient, parameters
