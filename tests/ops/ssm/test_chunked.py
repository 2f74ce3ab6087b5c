"""The chunked state space by each of its implementations, against the recurrence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import random_parameters, segment_patterns

from spade_jax.ops.dispatch import Unsupported, interpreted
from spade_jax.ops.ssm.convolution import CHUNKED, convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout

D, N = 4, 8


@pytest.fixture(params=[*CHUNKED.implementations])
def chunked(request):
    """`convolve` by each implementation: all do what every test with this says, or refuse."""

    def run(*arrays, **settings):
        try:
            with interpreted():
                return convolve(*arrays, implementation=request.param, **settings)
        except Unsupported as refusal:
            pytest.skip(str(refusal))

    return run


def value_and_gradients(run, parameters, u, weight):
    """The output and, of its product with a weight, the gradients by parameters and input."""

    def output(parameters, u):
        system = discretize(StateSpace(*parameters[:4]), "bilinear")
        return run(system, readout(parameters.c), u)

    @jax.jit
    def compute(parameters, u):
        y, pullback = jax.vjp(output, parameters, u)
        return y, pullback(jnp.asarray(weight, y.dtype))

    return compute(parameters, u)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both-ways"])
@pytest.mark.parametrize(
    ("length", "chunk", "cut"),
    # One block; an odd number of blocks, one of them padded; carried in three rounds; cut off.
    [(7, 8, None), (37, 8, None), (64, 8, None), (29, 4, 11)],
)
@pytest.mark.parametrize("dplr", [True, False], ids=["S4", "S4D"])
def test_outputs_and_gradients_are_those_of_the_recurrence(
    chunked, bidirectional, length, chunk, cut, dplr
):
    segment_ids = segment_patterns(length, chunk, ("whole", "right", "at_borders", "anywhere"))
    rows = 2 if bidirectional else 1
    parameters = random_parameters(D, N, 2, rows, dplr, seed=1, dtype=np.float32)
    random = np.random.default_rng(2)
    u, weight = random.normal(size=(2, *segment_ids.shape, D)).astype(np.float32)
    weight = (weight * (segment_ids != 0)[..., None])[:, :, None]
    settings = {
        "segment_ids": segment_ids,
        "bidirectional": bidirectional,
        "max_kernel_length": cut,
    }
    found = value_and_gradients(
        functools.partial(chunked, chunk_length=chunk, **settings), parameters, u, weight
    )
    expected = value_and_gradients(
        functools.partial(convolve, method="reference", **settings), parameters, u, weight
    )
    tokens = (segment_ids != 0)[..., None, None]
    found, expected = ((y * tokens, gradients) for y, gradients in (found, expected))
    for value, correct in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert value.dtype == correct.dtype
        scale = np.abs(correct).max()
        np.testing.assert_allclose(value, correct, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("packed", [False, True])
def test_bfloat16_costs_what_rounding_the_output_costs(chunked, packed):
    """Against float64, of inputs that bfloat16 has exactly."""
    length, chunk = 96, 16
    parameters = random_parameters(D, N, 4, 2, True, seed=3, dtype=np.float32)
    random = np.random.default_rng(4)
    patterns = ("whole", "anywhere")
    segment_ids = segment_patterns(length, chunk, patterns) if packed else None
    u, weight = jnp.asarray(random.normal(size=(2, len(patterns), length, D)), jnp.bfloat16)
    tokens = np.ones((len(patterns), length)) if segment_ids is None else segment_ids != 0
    weight = weight * jnp.asarray(tokens, weight.dtype)[..., None]
    settings = {"segment_ids": segment_ids, "bidirectional": True}
    run = functools.partial(chunked, chunk_length=chunk, **settings)
    found = value_and_gradients(run, parameters, u, weight[:, :, None])
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: x.astype(np.promote_types(x.dtype, np.float64)), parameters)
        reference = functools.partial(convolve, method="reference", **settings)
        expected = value_and_gradients(
            reference, exact, np.asarray(u, np.float64), np.asarray(weight[:, :, None], np.float64)
        )
        expected = jax.tree.map(np.asarray, expected)
    assert found[0].dtype == jnp.float32
    assert found[1][1].dtype == jnp.bfloat16
    found, expected = (
        (np.asarray(y) * tokens[..., None, None], gradients) for y, gradients in (found, expected)
    )
    rounding = 2.0**-9  # the largest relative error of one; operands are two, a gradient a third
    for value, correct in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        value = np.asarray(value.astype(jnp.promote_types(value.dtype, jnp.float32)))
        error = np.sqrt(np.mean(np.abs(value - correct) ** 2) / np.mean(np.abs(correct) ** 2))
        assert error < 3 * rounding


def test_float32_is_left_exact(chunked):
    """A float32 input is multiplied in float32, whatever a bfloat16 one is."""
    parameters = random_parameters(D, N, 4, 2, True, seed=5, dtype=np.float32)
    u = np.random.default_rng(6).normal(size=(1, 40, D)).astype(np.float32)
    u = np.asarray(jnp.asarray(u, jnp.bfloat16).astype(jnp.float32))
    system, c = discretize(StateSpace(*parameters[:4]), "bilinear"), readout(parameters.c)
    run = functools.partial(chunked, system, c, chunk_length=8, bidirectional=True)
    exact = convolve(system, c, u, method="reference", bidirectional=True)
    scale = np.abs(exact).max()
    assert np.abs(run(u) - exact).max() < 1e-5 * scale
    assert np.abs(run(jnp.asarray(u, jnp.bfloat16)) - exact).max() > 1e-4 * scale
