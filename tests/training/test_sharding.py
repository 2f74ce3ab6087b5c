import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from spade_jax.config import ConfigError
from spade_jax.elements import Linear
from spade_jax.partition import MESH_AXES
from spade_jax.training.config import MeshConfig, TrainConfig
from spade_jax.training.sharding import (
    check_batch,
    make_mesh,
    optimizer_shardings,
    parameter_spec,
    slot_spec,
)

MESH = AbstractMesh((2, 4, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize(
    ("shape", "axes", "spec"),
    [
        ((32, 8), ("vocab", "embed"), P("tensor", "fsdp")),
        ((8,), ("embed",), P("fsdp")),
        ((5, 8, 8), ("embed", "embed"), P(None, "fsdp", None)),
        ((3,), ("norm",), P(None)),
    ],
)
def test_parameters_lie_by_their_axes(shape, axes, spec):
    assert parameter_spec("w", shape, axes, MESH) == spec


def test_an_axis_without_a_rule_is_rejected():
    with pytest.raises(ConfigError, match="axis 'embedd': has no rule; did you mean 'embed'"):
        parameter_spec("a/w", (8,), ("embedd",), MESH)


def test_a_length_that_does_not_divide_is_rejected():
    with pytest.raises(ConfigError, match=r"mesh.fsdp = 4: must divide axis 'embed' of a/w.* 6"):
        parameter_spec("a/w", (6,), ("embed",), MESH)


@pytest.mark.parametrize(
    ("slot", "spec"),
    [((3, 32, 8), P(None, None, "fsdp")), ((3, 32), P(None, None)), ((3, 8), P(None, "fsdp"))],
)
def test_slots_lie_with_their_parameter(slot, spec):
    assert slot_spec(slot, (3, 32, 8), P(None, None, "fsdp")) == spec


def test_a_placeholder_slot_is_replicated():
    assert slot_spec((1,), (32, 8), P(None, "fsdp")) == P()


def test_factored_slots_are_sharded():
    optimizer = optax.scale_by_factored_rms(min_dim_size_to_factor=4)
    params = {"w": jnp.zeros((32, 8)), "b": jnp.zeros(8)}
    places = {"w": NamedSharding(MESH, P(None, "fsdp")), "b": NamedSharding(MESH, P("fsdp"))}
    found = optimizer_shardings(optimizer, optimizer.init(params), params, places)
    specs = jax.tree.map(lambda place: place.spec, found)
    assert specs.v_row["w"] == P("fsdp")  # Means over the rows: one a column.
    assert specs.v_col["w"] == P(None)
    assert specs.v["b"] == P("fsdp")
    assert specs.count == P()


def test_batches_must_divide_over_devices_and_microbatches():
    check_batch(TrainConfig(steps=1, batch_size=16, microbatches=2), MESH)
    with pytest.raises(ConfigError, match=r"train.batch_size = 24: .* 2 microbatches x 8 shards"):
        check_batch(TrainConfig(steps=1, batch_size=24, microbatches=2), MESH)


def test_mesh_sizes_must_fit_the_devices():
    assert dict(make_mesh(MeshConfig()).shape) == dict.fromkeys(MESH_AXES, 1)
    with pytest.raises(ConfigError, match=r"data 3 x fsdp -1 x tensor 1 .* the 1 cpu device"):
        make_mesh(MeshConfig(data=3))


@dataclasses.dataclass(frozen=True)
class GpuOfAMachine:
    """A stand-in for a device of one of several machines."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"


@pytest.mark.parametrize(
    ("config", "among"),
    [
        (MeshConfig(data=2), [True, False, False, False]),
        (MeshConfig(), [False, True, False, False]),
        # Before the whole mesh is one sequence's, the outer axes go among machines.
        (MeshConfig(tensor=2, sequence=2), [False, True, False, False]),
        (MeshConfig(sequence=8), [False, False, False, True]),
    ],
)
def test_the_outermost_axes_go_among_machines(config, among):
    devices = [GpuOfAMachine(place, place // 4) for place in range(8)]
    machines = np.vectorize(lambda device: device.slice_index)(make_mesh(config, devices).devices)
    for axis, crosses in enumerate(among):
        assert (machines != machines.take([0], axis)).any() == crosses


def test_an_accelerator_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"mesh.platform = 'tpu': there is no such device here"):
        make_mesh(MeshConfig(platform="tpu"))


@pytest.mark.parametrize(
    ("model", "optimizer", "meshes"),
    [
        ("stand-in", "adamw", [[1, 8], [2, 4], [8, 1]]),
        ("stand-in", "adafactor", [[2, 4]]),
        # With dropout.
        pytest.param("spade", "adamw", [[2, 4]], marks=pytest.mark.slow),
    ],
)
def test_eight_devices_give_what_one_gives(model, optimizer, meshes, on_eight_devices):
    script = Path(__file__).with_name("eight_devices.py")
    report = on_eight_devices(script, model, optimizer, json.dumps(meshes))
    assert [mesh["fsdp"] for mesh in report] == [fsdp for _, fsdp in meshes]
    width = 16 if model == "spade" else 8
    for mesh in report:
        assert mesh["loss_error"] < 1e-5
        assert mesh["state_error"] < 1e-5
        assert mesh["as_planned"]
        assert mesh["slot_shards"] == [8]
        np.testing.assert_array_equal(mesh["local_embedding"], [16, width // mesh["fsdp"]])


STRATEGIES = {
    "data": [8, 1, 1, 1],
    "fsdp": [1, 8, 1, 1],
    "fsdp + tensor": [1, 4, 2, 1],
    "fsdp + tensor + sequence": [1, 2, 2, 2],
    "data + fsdp + tensor": [2, 2, 2, 1],
    "data + sequence": [2, 1, 1, 4],
    "tensor + sequence": [1, 1, 2, 4],
}


QUICK = ["fsdp + tensor + sequence"]


@pytest.fixture(
    scope="module", params=[QUICK, pytest.param(list(STRATEGIES), marks=pytest.mark.slow)]
)
def strategies(request, on_eight_devices, tmp_path_factory):
    """What training with each strategy gives, by name, and how checkpoints moved between them."""
    sizes = json.dumps([STRATEGIES[name] for name in request.param])
    directory = tmp_path_factory.mktemp("checkpoints")
    report = on_eight_devices(Path(__file__).with_name("strategies.py"), sizes, str(directory))
    return dict(zip(request.param, report["meshes"], strict=True)), report


def test_strategies_give_what_one_device_gives(strategies):
    """Losses, gradients of the first step, and the state after three; with dropout."""
    for name, seen in strategies[0].items():
        assert seen["same_batches"], name
        assert seen["loss_error"] < 1e-5, name
        assert seen["eval_error"] < 1e-5, name
        assert seen["gradient_error"] < 1e-5, name
        assert seen["state_error"] < 1e-5, name
        assert seen["as_planned"], name


def test_no_activation_is_gathered_along_the_sequence(strategies):
    cut = {name: seen for name, seen in strategies[0].items() if "sequence" in name}
    assert cut
    for name, seen in cut.items():
        assert seen["permutes"] > 0, name
        assert seen["longest_gathered"] < strategies[1]["input_length"], name


def test_checkpoints_move_between_any_two_strategies(strategies):
    by_name, report = strategies
    assert report["moves"] == len(by_name) ** 2
    assert report["moves_exact"] == report["moves"]


def test_a_parameter_is_put_together_before_its_matmul():
    """From the pieces of fsdp; what tensor cuts stays cut."""
    mesh = AbstractMesh((1, 4, 2, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    linear = nnx.eval_shape(lambda: Linear(("embed", "mlp"), 8, 16, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((4, 6, 8), jnp.bfloat16)
    graph, state = nnx.split(linear)
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    (laid,) = [e for e in jaxpr.eqns if e.primitive.name == "sharding_constraint"]
    assert laid.params["sharding"].spec == P(None, "tensor")
    assert laid.invars[0].aval.dtype == jnp.bfloat16
