"""A pre-training step compiled for devices that need not be here, and what it takes of each."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from spade_jax import partition
from spade_jax.aot import hlo
from spade_jax.config import ModelConfig
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.flops import train_step_flops
from spade_jax.training import sharding
from spade_jax.training.config import LossConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import Tree, abstract_model, make_trainer

Part = Literal["step", "encoder"]


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
      formula_flops: those of `models.flops`, shared out evenly; None for the encoder alone.
      bytes_accessed: XLA's estimate, with loops counted once; None where it has none.
      collectives: each with how often it runs.
      seconds: that tracing and compiling took.
    """

    memory: Memory | None
    too_large: str
    flops: int
    formula_flops: float | None
    bytes_accessed: float | None
    collectives: tuple[tuple[hlo.Collective, int], ...]
    seconds: float

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
    rows: int, input_length: int, target_length: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Of seqio's features of a batch of so many rows, unpacked, int32, each with its sharding."""
    lengths = {
        "encoder_input_tokens": input_length,
        "decoder_input_tokens": target_length,
        "decoder_target_tokens": target_length,
        "decoder_loss_weights": target_length,
    }
    place = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((rows, length), np.int32, sharding=place)
        for name, length in lengths.items()
    }


def compile_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    loss: LossConfig,
    train: TrainConfig,
    lengths: tuple[int, int],
    mesh: Mesh,
    *,
    part: Part = "step",
    quick: bool = False,
) -> Report:
    """Compiles a training step, or the encoder's gradient alone, and analyses it.

    Args:
      lengths: of inputs and targets, in tokens.
      quick: tells the compiler to try less hard; memory is then somewhat overestimated.

    Raises:
      ConfigError: a model or batch that the mesh does not divide.
    """
    start = time.perf_counter()
    sharding.check_model(model, lengths[0], mesh)
    sharding.check_batch(train, mesh)
    shapes = batch_shapes(train.batch_size, *lengths, mesh)

    def create(rngs: nnx.Rngs) -> EncoderDecoder:
        return EncoderDecoder(model, rngs)

    function: Any
    arguments: tuple[Any, ...]
    if part == "encoder":
        function, arguments = _encoder_gradient(create, shapes["encoder_input_tokens"], mesh)
        formula = None
    else:
        trainer = make_trainer(create, optimizer, loss, train, mesh)
        function, arguments = trainer.train_step, (trainer.state_shapes, shapes)
        formula = train_step_flops(model, train.batch_size, *lengths) / mesh.size
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
    return analyse(compiled, mesh, formula, time.perf_counter() - start)


def analyse(compiled: Any, mesh: Mesh, formula: float | None, seconds: float) -> Report:
    """What the compiler says of a compiled program, and what its optimised HLO holds."""
    sizes = compiled.memory_analysis()
    cost = hlo.count(compiled.as_text(), dict(mesh.shape))
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


def _encoder_gradient(
    create: Callable[[nnx.Rngs], EncoderDecoder], tokens: jax.ShapeDtypeStruct, mesh: Mesh
) -> tuple[Any, tuple[Tree, jax.ShapeDtypeStruct]]:
    """The gradient of a sum over the encoder's outputs, by all parameters, and its arguments."""
    graphdef, parameters, _ = abstract_model(create, mesh)

    def total(params: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
        with partition.on_mesh(mesh):
            encoded = nnx.merge(graphdef, params).encode(
                tokens,
                segment_ids=(tokens != 0).astype(int),
                dropout_key=jax.random.key(0),
            )
            return jnp.sum(encoded.astype(jnp.float32) ** 2)

    places = jax.tree.map(lambda shape: shape.sharding, parameters)
    gradient = jax.jit(
        jax.grad(total), in_shardings=(places, tokens.sharding), out_shardings=places
    )
    return gradient, (parameters, tokens)
