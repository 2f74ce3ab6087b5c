"""The train state, the loss, and the compiled steps that update and evaluate it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding

from spade_jax import partition
from spade_jax.training import sharding
from spade_jax.training.config import LossConfig, OptimizerConfig, TrainConfig
from spade_jax.training.optimizer import ParameterKind, join, make_optimizer

Tree = Any
Batch = Mapping[str, Any]


class TrainState(NamedTuple):
    """All that an update changes.

    Attributes:
      step: updates done, int32.
      params: nested dicts of float32 arrays, as `nnx.to_pure_dict` gives them.
      opt_state: optimiser slots of the trainable parameters.
    """

    step: Any
    params: Tree
    opt_state: Tree


class TokenSums(NamedTuple):
    """Sums over target tokens, so that parts of a batch of any sizes add up.

    Attributes:
      loss, z_loss: in nats, float32; the objective is their sum.
      correct, tokens: int32.
    """

    loss: jax.Array
    z_loss: jax.Array
    correct: jax.Array
    tokens: jax.Array


def token_losses(
    logits_btv: jax.Array, targets_bt: jax.Array, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """Cross entropy and z-loss of each token, both [b, t], float32, in nats.

    With label smoothing s the target has probability 1 - s, each other token s / (v - 1); the
    entropy of that distribution is taken off, so that a perfect prediction costs 0, as in T5.
    """
    logits_btv = logits_btv.astype(jnp.float32)
    log_z_bt = jax.nn.logsumexp(logits_btv, axis=-1)
    target_bt = jnp.take_along_axis(logits_btv, targets_bt[..., None], axis=-1)[..., 0]
    loss_bt = log_z_bt - target_bt
    smoothing = config.label_smoothing
    if smoothing > 0:
        others = logits_btv.shape[-1] - 1
        other_losses_bt = others * log_z_bt - (logits_btv.sum(axis=-1) - target_bt)
        entropy = -((1 - smoothing) * np.log1p(-smoothing) + smoothing * np.log(smoothing / others))
        loss_bt = (1 - smoothing) * loss_bt + smoothing / others * other_losses_bt - entropy
    return loss_bt, config.z_loss * log_z_bt**2


def token_sums(
    model: Callable[..., jax.Array], batch: Batch, config: LossConfig, dropout_key: jax.Array | None
) -> TokenSums:
    """Runs an encoder-decoder on a batch of seqio's features [b, l] and sums over its targets.

    The decoder's are filled up with padding to what the ambient mesh can cut.
    """
    beyond = -batch["decoder_target_tokens"].shape[1] % partition.sequence_shards()
    if beyond:
        batch = {
            name: jnp.pad(array, ((0, 0), (0, beyond))) if name.startswith("decoder_") else array
            for name, array in batch.items()
        }
    encoder_tokens, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    logits_btv = model(
        encoder_tokens,
        batch["decoder_input_tokens"],
        encoder_segment_ids=batch.get("encoder_segment_ids", (encoder_tokens != 0).astype(int)),
        encoder_positions=batch.get("encoder_positions"),
        decoder_segment_ids=batch.get("decoder_segment_ids", (targets != 0).astype(int)),
        decoder_positions=batch.get("decoder_positions"),
        dropout_key=dropout_key,
    )
    loss_bt, z_loss_bt = token_losses(logits_btv, targets, config)
    counts_bt = batch["decoder_loss_weights"] > 0
    correct_bt = (jnp.argmax(logits_btv, axis=-1) == targets) & counts_bt
    return TokenSums(
        jnp.sum(jnp.where(counts_bt, loss_bt, 0.0)),
        jnp.sum(jnp.where(counts_bt, z_loss_bt, 0.0)),
        jnp.sum(correct_bt, dtype=jnp.int32),
        jnp.sum(counts_bt, dtype=jnp.int32),
    )


def batch_digest(batch: Batch) -> jax.Array:
    """Equal for equal batches, however their rows lie on devices and processes: uint32.

    A sum over hashes of each number with its place (the finaliser of MurmurHash3), so that no row
    moves.
    """

    def mixed(x: jax.Array) -> jax.Array:
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return x ^ (x >> 16)

    total = jnp.uint32(0)
    for number, (_, array) in enumerate(sorted(batch.items())):
        rows = jnp.arange(array.shape[0], dtype=jnp.uint32)[:, None]
        columns = jnp.arange(array.shape[1], dtype=jnp.uint32)[None]
        places = mixed(rows * array.shape[1] + columns + number * jnp.uint32(0x9E3779B9))
        total += jnp.sum(mixed(places ^ array.astype(jnp.uint32)), dtype=jnp.uint32)
    return total


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A model bound to its optimiser, loss and devices.

    Attributes:
      state_shapes: a `TrainState` of `jax.ShapeDtypeStruct`, each with its sharding.
      trainable: names of the parameters that are trained, the others being frozen.
      batch_size: b of the batches that `train_step` takes.
      eval_batch_size: b of those that `eval_step` takes, one microbatch.
      init: () -> TrainState, born on its devices.
      train_step: (state, batch) -> (state, metrics); the state given is donated. Metrics are
        scalars: loss, z_loss, accuracy (means over target tokens), tokens, grad_norm (before
        clipping), update_norm, learning_rate, and `batch_digest` of the batch.
      eval_step: (params, batch) -> TokenSums without smoothing, z-loss or dropout.
      model: params -> the model with them.
    """

    mesh: Mesh
    state_shapes: TrainState
    trainable: frozenset[str]
    batch_size: int
    eval_batch_size: int
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    eval_step: Callable[[Tree, Batch], TokenSums]
    model: Callable[[Tree], Any]


class AbstractModel(NamedTuple):
    """A model without arrays.

    Attributes:
      graph: of its modules.
      shapes: of its parameters: nested dicts of `jax.ShapeDtypeStruct`, each with its sharding.
      kinds: what the optimiser must know of each parameter, by name.
    """

    graph: nnx.GraphDef
    shapes: Tree
    kinds: Mapping[str, ParameterKind]


def abstract_model(create: Callable[[nnx.Rngs], nnx.Module], mesh: Mesh) -> AbstractModel:
    """The model that `create` makes.

    Each parameter says what it is, see `spade_jax.elements.parameter`; of the `axes` of a stack of
    layers a leading one is not named.

    Raises:
      ConfigError: parameters that do not divide over the mesh.
    """
    graph, variables = nnx.split(nnx.eval_shape(lambda: create(nnx.Rngs(0))))
    shapes, kinds = {}, {}
    for path, variable in nnx.to_flat_state(variables):
        name = "/".join(map(str, path))
        spec = sharding.parameter_spec(name, variable.shape, variable.axes, mesh)
        shapes[path] = jax.ShapeDtypeStruct(
            variable.shape, variable.dtype, sharding=NamedSharding(mesh, spec)
        )
        metadata = variable.get_metadata()
        kinds[name] = ParameterKind(
            decays=metadata.get("decays", True),
            group=metadata.get("group", "main"),
            stacked=len(variable.shape) > len(variable.axes),
        )
    return AbstractModel(graph, unflatten_dict(shapes), kinds)


def make_trainer(
    create: Callable[[nnx.Rngs], nnx.Module],
    optimizer_config: OptimizerConfig,
    loss_config: LossConfig,
    config: TrainConfig,
    mesh: Mesh,
) -> Trainer:
    """Binds the model that `create` makes, see `abstract_model`; nothing is compiled or allocated.

    Raises:
      ConfigError: batches or parameters that do not divide over the mesh, or tables of rates
        that do not fit the parameters.
    """
    sharding.check_batch(config, mesh)
    graphdef, parameters, kinds = abstract_model(create, mesh)
    optimizer = make_optimizer(optimizer_config, config.steps, parameters, kinds)
    transformation = optimizer.transformation
    replicated = sharding.replicated(mesh)
    batch_sharding = sharding.batch_sharding(mesh)

    def init() -> TrainState:
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(config.seed), 0))
        params = nnx.to_pure_dict(nnx.state(create(rngs)))
        return TrainState(
            jnp.zeros((), jnp.int32), params, transformation.init(optimizer.split(params)[0])
        )

    shapes = jax.eval_shape(init)
    param_shardings = jax.tree.map(lambda shape: shape.sharding, parameters)
    state_shardings = TrainState(
        replicated,
        param_shardings,
        sharding.optimizer_shardings(
            transformation,
            shapes.opt_state,
            optimizer.split(shapes.params)[0],
            optimizer.split(param_shardings)[0],
        ),
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        trainable, frozen = optimizer.split(state.params)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step + 1)

        def objective(trainable: Tree, part: Batch, key: jax.Array) -> tuple[jax.Array, TokenSums]:
            model = nnx.merge(graphdef, join(trainable, frozen))
            with partition.on_mesh(mesh):
                sums = token_sums(model, part, loss_config, key)
            return sums.loss + sums.z_loss, sums

        def accumulate(total: Tree, part: tuple[jax.Array, Batch]) -> tuple[Tree, None]:
            index, microbatch = part
            sums = jax.grad(objective, has_aux=True)(
                trainable, microbatch, jax.random.fold_in(key, index)
            )
            return jax.tree.map(jnp.add, total, sums), None

        def in_parts(array: jax.Array) -> jax.Array:
            # Each part takes rows from every device: no row moves between devices.
            parts = array.reshape(-1, config.microbatches, *array.shape[1:]).swapaxes(0, 1)
            return jax.lax.with_sharding_constraint(
                parts, NamedSharding(mesh, partition.partition_spec((None, "batch")))
            )

        zeros = (
            jax.tree.map(jnp.zeros_like, trainable),
            TokenSums(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0)),
        )
        (grads, sums), _ = jax.lax.scan(
            accumulate,
            zeros,
            (jnp.arange(config.microbatches), jax.tree.map(in_parts, dict(batch))),
        )
        tokens = jnp.maximum(sums.tokens, 1).astype(jnp.float32)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        updates, opt_state = transformation.update(grads, state.opt_state, trainable)
        metrics = {
            "loss": sums.loss / tokens,
            "z_loss": sums.z_loss / tokens,
            "accuracy": sums.correct / tokens,
            "tokens": sums.tokens,
            "grad_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
            "batch_digest": batch_digest(batch),
            "learning_rate": jnp.asarray(optimizer.learning_rate(state.step), jnp.float32),
        }
        params = join(optax.apply_updates(trainable, updates), frozen)
        return TrainState(state.step + 1, params, opt_state), metrics

    def eval_step(params: Tree, batch: Batch) -> TokenSums:
        with partition.on_mesh(mesh):
            return token_sums(nnx.merge(graphdef, params), batch, LossConfig(), None)

    return Trainer(
        mesh=mesh,
        state_shapes=jax.tree.map(
            lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
            shapes,
            state_shardings,
        ),
        trainable=optimizer.trainable,
        batch_size=config.batch_size,
        eval_batch_size=config.batch_size // config.microbatches,
        # It runs once: compiling it quickly matters more than running it quickly.
        init=jax.jit(
            init,
            out_shardings=state_shardings,
            compiler_options={
                "xla_backend_optimization_level": 0,
                "xla_llvm_disable_expensive_passes": True,
            },
        ),
        train_step=jax.jit(
            train_step,
            in_shardings=(state_shardings, batch_sharding),
            out_shardings=(state_shardings, replicated),
            donate_argnums=0,
        ),
        eval_step=jax.jit(
            eval_step,
            in_shardings=(param_shardings, batch_sharding),
            out_shardings=replicated,
        ),
        model=lambda params: nnx.merge(graphdef, params),
    )
