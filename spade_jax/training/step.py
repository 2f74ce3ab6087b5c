"""The train state, and the compiled steps that update and evaluate it by an objective."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding

from spade_jax import partition
from spade_jax.elements import Statistic, statistics, train
from spade_jax.objectives.base import Objective, Sums, batch_digest
from spade_jax.places import place
from spade_jax.training import sharding
from spade_jax.training.config import OptimizerConfig, TrainConfig
from spade_jax.training.optimizer import Optimizer, ParameterKind, join, make_optimizer

Tree = Any
Arrays = Mapping[str, Any]


class TrainState(NamedTuple):
    """All that an update changes.

    Attributes:
      step: updates done, int32.
      params: nested dicts of float32 arrays, as `nnx.to_pure_dict` gives them; running statistics
        are among them.
      opt_state: optimiser slots of the trainable parameters.
    """

    step: Any
    params: Tree
    opt_state: Tree


TrainStep = Callable[[TrainState, Arrays], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A model bound to its objective, optimiser and devices.

    Attributes:
      state_shapes: a `TrainState` of `jax.ShapeDtypeStruct`, each with its sharding.
      trainable: names of the parameters that are trained, the others being frozen.
      batch_size: b of the batches that `train_step` takes.
      eval_batch_size: b of those that `eval_step` takes, one microbatch.
      init: () -> TrainState, born on its devices.
      train_step: (state, batch) -> (state, metrics); the state given is donated. Metrics are
        scalars: the objective's means, such as loss, and grad_norm (before clipping), update_norm,
        learning_rate, and `batch_digest` of the batch.
      eval_step: (params, batch) -> sums, as the objective measures what is held out.
      model: params -> the model with them.
    """

    mesh: Mesh
    objective: Objective
    state_shapes: TrainState
    trainable: frozenset[str]
    batch_size: int
    eval_batch_size: int
    init: Callable[[], TrainState]
    train_step: TrainStep
    eval_step: Callable[[Tree, Arrays], Sums]
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
            statistic=isinstance(variable, Statistic),
        )
    return AbstractModel(graph, unflatten_dict(shapes), kinds)


def make_trainer(
    create: Callable[[nnx.Rngs], nnx.Module],
    objective: Objective,
    optimizer_config: OptimizerConfig,
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

    def init() -> TrainState:
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(config.seed), 0))
        params = nnx.to_pure_dict(nnx.state(create(rngs)))
        slots = optimizer.transformation.init(optimizer.split(params)[0])
        return TrainState(jnp.zeros((), jnp.int32), params, slots)

    train_step = _train_step(graphdef, objective, optimizer, config, mesh)
    shapes = jax.eval_shape(init)
    param_shardings = jax.tree.map(lambda shape: shape.sharding, parameters)
    replicated, batch_sharding = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    state_shardings = TrainState(
        replicated,
        param_shardings,
        sharding.optimizer_shardings(
            optimizer.transformation,
            shapes.opt_state,
            optimizer.split(shapes.params)[0],
            optimizer.split(param_shardings)[0],
        ),
    )
    return Trainer(
        mesh=mesh,
        objective=objective,
        state_shapes=jax.tree.map(
            lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
            shapes,
            state_shardings,
        ),
        trainable=optimizer.trainable,
        batch_size=config.batch_size,
        eval_batch_size=config.batch_size // config.microbatches,
        init=jax.jit(init, out_shardings=state_shardings, compiler_options=_QUICKLY),
        train_step=jax.jit(
            train_step,
            in_shardings=(state_shardings, batch_sharding),
            out_shardings=(state_shardings, replicated),
            donate_argnums=0,
            compiler_options=_OPTIONS.get(mesh.devices.flat[0].platform),
        ),
        eval_step=jax.jit(
            measuring(graphdef, objective, mesh),
            in_shardings=(param_shardings, batch_sharding),
            out_shardings=replicated,
        ),
        model=lambda params: nnx.merge(graphdef, params),
    )


def measuring(
    graphdef: nnx.GraphDef, objective: Objective, mesh: Mesh
) -> Callable[[Any, Arrays], Sums]:
    """(parameters, batch) -> the objective's sums of what is held out; to be compiled."""

    def measure(params: Any, batch: Arrays) -> Sums:
        with partition.on_mesh(mesh):
            return objective.measure(nnx.merge(graphdef, params), objective.batch.of(batch))

    return measure


# Of a step, by platform. XLA makes one matmul of those that take the same input, such as queries,
# keys and values: on a GPU each then has to be copied out of the result for attention's kernels.
_OPTIONS = {"gpu": {"xla_gpu_dot_merger_threshold_mb": 0}}
# Of what runs once: compiling it quickly matters more than running it quickly.
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def _train_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    optimizer: Optimizer,
    config: TrainConfig,
    mesh: Mesh,
) -> TrainStep:
    """An update, of a batch in parts whose gradients and sums are added up."""

    def train_step(state: TrainState, batch: Arrays) -> tuple[TrainState, dict[str, jax.Array]]:
        trainable, frozen = optimizer.split(state.params)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step + 1)

        def minimised(
            trainable: Tree, measured: Tree, part: Arrays, key: jax.Array
        ) -> tuple[jax.Array, tuple[Sums, Tree]]:
            model = nnx.merge(graphdef, join(trainable, frozen, measured))
            train(model)
            with partition.on_mesh(mesh), place("rest of the model"):
                sums = objective(model, objective.batch.of(part), key)
            return sums.minimised, (sums, statistics(model))

        gradient = jax.grad(minimised, has_aux=True)

        def accumulate(
            carry: tuple[Tree, Tree], part: tuple[jax.Array, Arrays]
        ) -> tuple[tuple[Tree, Tree], None]:
            (total, measured), (index, microbatch) = carry, part
            grads, (sums, measured) = gradient(
                trainable, measured, microbatch, jax.random.fold_in(key, index)
            )
            return (jax.tree.map(jnp.add, total, (grads, sums)), measured), None

        def in_parts(array: jax.Array) -> jax.Array:
            # Each part takes rows from every device: no row moves between devices.
            parts = array.reshape(-1, config.microbatches, *array.shape[1:]).swapaxes(0, 1)
            return jax.lax.with_sharding_constraint(
                parts, NamedSharding(mesh, partition.partition_spec((None, "batch")))
            )

        measured = statistics(nnx.merge(graphdef, state.params))
        if config.microbatches == 1:
            grads, (sums, measured) = gradient(
                trainable, measured, batch, jax.random.fold_in(key, 0)
            )
        else:
            nothing = (jax.tree.map(jnp.zeros_like, trainable), objective.sums.zeros())
            ((grads, sums), measured), _ = place("microbatches")(jax.lax.scan)(
                accumulate,
                (nothing, measured),
                (jnp.arange(config.microbatches), jax.tree.map(in_parts, dict(batch))),
            )
        divisor = jnp.maximum(sums.divisor, 1).astype(jnp.float32)
        with place("optimiser"):
            grads = jax.tree.map(lambda g: g / divisor, grads)
            updates, opt_state = optimizer.transformation.update(grads, state.opt_state, trainable)
            params = join(optax.apply_updates(trainable, updates), frozen, measured)
        with place("norms of gradients"):
            norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        metrics = sums.means() | norms
        metrics |= {
            "batch_digest": batch_digest(batch),
            "learning_rate": jnp.asarray(optimizer.learning_rate(state.step), jnp.float32),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step
