"""What of the TPU's kernels the chunked state space's suite does not reach: several groups of rows,
several features, D, states that fill no lanes; what they refuse; and that compilers take them."""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import random_parameters, segment_patterns

from spade_jax import partition
from spade_jax.ops import dispatch
from spade_jax.ops.dispatch import Unsupported
from spade_jax.ops.ssm import chunked
from spade_jax.ops.ssm.convolution import CHUNKED, convolve
from spade_jax.ops.ssm.discrete import DiscreteStateSpace, StateSpace, discretize, readout
from spade_jax.ops.ssm.sequence import SequenceShards
from spade_jax.ops.ssm.transition import RealDiagonal


def results(implementation, u, skip, dtype, segment_ids, bidirectional):
    """The output, and the gradients of its product with a weight by everything."""
    d = u.shape[2]
    parameters = random_parameters(d, 6, 2, 1 + bidirectional, True, seed=1, dtype=np.float32)
    weight = np.random.default_rng(3).normal(size=(*u.shape[:2], 1, d)).astype(np.float32)

    def total(parameters, u, skip):
        y = convolve(
            discretize(StateSpace(*parameters[:4]), "bilinear"),
            readout(parameters.c),
            u,
            skip=skip,
            dtype=dtype,
            chunk_length=4,
            segment_ids=segment_ids,
            bidirectional=bidirectional,
            implementation=implementation,
        )
        return jnp.sum(weight * y), y

    with dispatch.interpreted():
        (_, y), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(
            parameters, u, skip
        )
    assert y.dtype == dtype
    return [
        np.asarray(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        for x in (y, *jax.tree.leaves(gradients))
    ]


@pytest.mark.parametrize(
    ("dtype", "packed", "bidirectional", "tolerance"),
    [
        # The order of sums; and one rounding of outputs and of the input's gradient more.
        ("float32", True, True, 2e-5),
        ("float32", False, False, 2e-5),
        ("bfloat16", True, False, 2.0**-7),
        ("bfloat16", False, True, 2.0**-7),
    ],
)
def test_many_rows_and_features(dtype, packed, bidirectional, tolerance):
    """Two groups of 144 rows, two steps of five features."""
    length, features = 4 * 46, 10
    random = np.random.default_rng(2)
    segment_ids = np.concatenate([segment_patterns(length, 4)] * 2)[:6]
    u = random.normal(size=(6, length, features)) * (segment_ids != 0)[..., None]
    u, skip = jnp.asarray(u, dtype), random.normal(size=features).astype(np.float32)
    case = (u, skip, dtype, segment_ids if packed else None, bidirectional)
    found, expected = results("pallas_tpu", *case), results("xla", *case)
    for value, correct in zip(found, expected, strict=True):
        scale = np.abs(correct).max()
        np.testing.assert_allclose(value, correct, rtol=0, atol=tolerance * scale)


def operators_of(d=2, n=8, channels=1, length=64, chunk=8, directions=(1, -1), dtype="float32"):
    system = DiscreteStateSpace(RealDiagonal(jnp.full((d, n), 0.5, dtype)), jnp.ones((d, n), dtype))
    c = jnp.ones((len(directions), channels, d, n), dtype)
    return chunked.operators(system, c, length, directions, chunk_length=chunk)


def arguments_of(batch=1, shards=1, **change):
    operators = operators_of(**change)
    d, length = len(operators.matrices), change.get("length", 64)
    u = jax.ShapeDtypeStruct((batch, length, d), jnp.bfloat16)
    return operators, u, None, SequenceShards(shards, change.get("directions", (1, -1))), None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(length=8), "takes sequences of several blocks, and this is one"),
        (dict(shards=2), "takes whole sequences, and these are in 2 pieces"),
        (dict(channels=3), "takes one channel, and these are 3"),
        (dict(n=65), "takes up to 128 states in all directions, and these are 2 x 65"),
        (dict(batch=2**20), "keeps all tokens of a feature in 48 MiB of vector memory"),
        (dict(interpreted=False), "runs on a tpu, and this is for a cpu"),
        (dict(on_tpu=True), "takes chunk lengths of whole multiples of 128, and this is 8"),
        (dict(on_tpu=True, chunk=128, length=256, n=4), "takes states of whole multiples of 8"),
    ],
)
def test_refusals(monkeypatch, change, message):
    change = dict(change)
    on_tpu = change.pop("on_tpu", False)
    interpreted = change.pop("interpreted", not on_tpu)
    if on_tpu:
        monkeypatch.setattr(partition, "platform", lambda: "tpu")
    arguments = arguments_of(**change)
    context = dispatch.interpreted() if interpreted else contextlib.nullcontext()
    with context, pytest.raises(Unsupported, match=message):
        CHUNKED.choose("pallas_tpu", *arguments)


@pytest.mark.parametrize(
    ("length", "best"),
    # 32 blocks; 22 of 32, the rest of which are filled up; 21; one.
    [(4096, "pallas_tpu"), (2816, "pallas_tpu"), (2688, "xla"), (128, "xla")],
)
def test_a_tpu_s_default(monkeypatch, length, best):
    monkeypatch.setattr(partition, "platform", lambda: "tpu")
    arguments = arguments_of(length=length, chunk=128)
    assert CHUNKED.choose(None, *arguments) is CHUNKED.implementations[best].function


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_compiler_takes_them(on_eight_devices, topology):
    pytest.importorskip("libtpu")
    found = on_eight_devices(Path(__file__).with_name("compile_tpu_state_space.py"), topology)
    assert found
    for name, compiled in found.items():
        assert compiled == ["state_space_backward", "state_space_forward"], name
