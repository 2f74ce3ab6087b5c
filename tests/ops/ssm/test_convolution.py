"""The three convolutions and the step, against the definition and each other."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import (
    PATTERNS,
    convolve_by_definition,
    random_parameters,
    seen_pairs,
    segment_patterns,
    small_parameters,
)

from spade_jax.ops.ssm.convolution import METHODS, convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout, step


class Case(NamedTuple):
    """One point of the settings; `patterns` are the rows of the batch (see `segment_patterns`)."""

    dplr: bool
    discretization: str
    length: int
    chunk: int
    bidirectional: bool = False
    cut: int | None = None
    patterns: tuple[str, ...] | None = PATTERNS
    batch: int = 1
    channels: int = 1
    copies: int = 4


ALIGNED = ("whole", "at_borders", "nothing")
CASES = {
    "odd length": Case(
        True, "bilinear", 37, 8, cut=38, patterns=None, batch=2, channels=2, copies=2
    ),
    "all at once": Case(True, "bilinear", 37, 8, bidirectional=True, cut=11, channels=2),
    "packed at borders": Case(True, "bilinear", 40, 8, bidirectional=True, patterns=ALIGNED),
    "S4D zoh": Case(False, "zoh", 33, 32, channels=2, copies=2),
    "S4D bilinear": Case(False, "bilinear", 37, 4, bidirectional=True, cut=36),
    "S4 zoh": Case(True, "zoh", 21, 4, bidirectional=True, copies=1),
    "below one chunk": Case(False, "zoh", 5, 64, bidirectional=True, cut=3, patterns=None),
    "length 1": Case(True, "bilinear", 1, 64, bidirectional=True, patterns=("whole", "nothing")),
    "one token, one tap": Case(True, "bilinear", 9, 1, bidirectional=True, cut=1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.usefixtures("x64")
def test_methods_are_the_definition_in_value_and_gradient(case):
    # In float64, where nothing hides behind rounding; that they stay there is checked too.
    d, n = 4, 6
    rows = case.channels * (2 if case.bidirectional else 1)
    parameters = random_parameters(d, n, case.copies, rows, case.dplr, seed=1)
    segment_ids = None
    if case.patterns is not None:
        segment_ids = segment_patterns(case.length, case.chunk, case.patterns)
    tokens = np.ones((case.batch, case.length), int) if segment_ids is None else segment_ids
    random = np.random.default_rng(2)
    u = random.normal(size=(*tokens.shape, d))
    # What stands at padding has no meaning: it is neither compared nor differentiated.
    weight = random.normal(size=(*tokens.shape, case.channels, d)) * (tokens != 0)[..., None, None]
    pairs = seen_pairs(tokens, case.bidirectional)

    def by_definition(parameters, u):
        return convolve_by_definition(
            parameters, u, case.discretization, pairs, case.bidirectional, case.cut
        )

    def by(method):
        def run(parameters, u):
            return convolve(
                discretize(StateSpace(*parameters[:4]), case.discretization),
                readout(parameters.c),
                u,
                method=method,
                chunk_length=case.chunk,
                segment_ids=segment_ids,
                bidirectional=case.bidirectional,
                max_kernel_length=case.cut,
            )

        return run

    @jax.jit
    def compute(parameters, u):
        def value_and_gradients(run):
            y, pullback = jax.vjp(run, parameters, u)
            return y * (tokens != 0)[..., None, None], pullback(jnp.asarray(weight))

        return value_and_gradients(by_definition), {
            method: value_and_gradients(by(method)) for method in METHODS
        }

    expected, results = compute(parameters, u)
    for method, result in results.items():
        for (path, value), correct in zip(
            jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(expected)
        ):
            message = f"{method} {jax.tree_util.keystr(path)}"
            assert value.dtype == correct.dtype, message
            scale = np.abs(correct).max()
            np.testing.assert_allclose(
                value, correct, rtol=0, atol=1e-11 * max(scale, 1e-3), err_msg=message
            )


@pytest.mark.parametrize("structure", ["dplr", "diagonal"])
@pytest.mark.parametrize("discretization", ["bilinear", "zoh"])
@pytest.mark.usefixtures("x64")
def test_steps_are_the_definition_in_value_and_gradient(structure, discretization):
    batch, length, d, n, channels = 2, 19, 4, 6, 2
    parameters = random_parameters(d, n, 2, channels, structure == "dplr", seed=3)
    random = np.random.default_rng(4)
    u, weight = (random.normal(size=(batch, length, *s)) for s in ((d,), (channels, d)))

    def token_by_token(parameters, u):
        system = discretize(StateSpace(*parameters[:4]), discretization)
        _, y = jax.lax.scan(
            lambda state, u_t: step(system, readout(parameters.c), state, u_t),
            jnp.zeros((batch, d, n)),
            jnp.moveaxis(u, 1, 0),
        )
        return jnp.moveaxis(y, 0, 1)

    def by_definition(parameters, u):
        pairs = np.ones((batch, length, length))
        return convolve_by_definition(parameters, u, discretization, pairs, False, None)

    @jax.jit
    def compute(parameters, u):
        results = []
        for run in (token_by_token, by_definition):
            y, pullback = jax.vjp(run, parameters, u)
            results.append((y, pullback(jnp.asarray(weight))))
        return results

    for value, correct in zip(*map(jax.tree.leaves, compute(parameters, u))):
        np.testing.assert_allclose(value, correct, rtol=0, atol=1e-11 * np.abs(correct).max())


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.usefixtures("x64")
def test_padded_is_unpadded_and_packed_is_separate(bidirectional):
    lengths = (12, 1, 9)
    parameters = small_parameters(2 if bidirectional else 1, np.float64)
    system = StateSpace(*parameters[:4])
    documents = [np.random.default_rng(n).normal(size=(1, n, 4)) for n in lengths]
    packed = np.concatenate([*documents, np.full((1, 3, 4), 1e3)], axis=1)
    ids = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)] + [np.zeros(3, int)])
    left = [
        np.pad(u, ((0, 0), (32 - u.shape[1], 0), (0, 0)), constant_values=1e3) for u in documents
    ]
    padded = np.concatenate(left)
    is_token = np.concatenate([np.arange(32)[None] >= 32 - n for n in lengths]).astype(np.int32)

    @jax.jit
    def compute(system):
        discrete, c = discretize(system, "bilinear"), readout(parameters.c)
        results = {}
        for method in METHODS:
            run = functools.partial(
                convolve, discrete, c, method=method, chunk_length=8, bidirectional=bidirectional
            )
            results[method] = (
                [run(u) for u in documents],
                run(packed, segment_ids=jnp.asarray(ids[None], jnp.int32)),
                run(padded, segment_ids=jnp.asarray(is_token)),
            )
        return results

    for separate, together, behind_padding in compute(system).values():
        start = 0
        for row, (n, alone) in enumerate(zip(lengths, separate)):
            for other in (together[:, start : start + n], behind_padding[row : row + 1, 32 - n :]):
                # The padding holds thousands: what leaked in would be seen.
                np.testing.assert_allclose(other, alone, rtol=0, atol=1e-11)
            start += n


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("x64")
def test_each_direction_reaches_its_own_side_only(method):
    # dy_i / du_j for every pair of tokens, one direction's readout being zero.
    length, d = 13, 4
    parameters = small_parameters(2, np.float64)
    system = StateSpace(*parameters[:4])

    @jax.jit
    def compute(system, c):
        def jacobian(c, bidirectional):
            def run(u):
                y = convolve(
                    discretize(system, "bilinear"),
                    readout(c),
                    jnp.broadcast_to(u[None, :, None], (1, length, d)),
                    method=method,
                    chunk_length=4,
                    bidirectional=bidirectional,
                )
                return y[0, :, 0].sum(axis=-1)

            return jax.jacrev(run)(jnp.zeros(length))

        first, second = c[:1], c[1:]
        zero = jnp.zeros_like(first)
        return (
            jacobian(first, False),
            jacobian(jnp.concatenate([first, zero]), True),
            jacobian(jnp.concatenate([zero, second]), True),
        )

    causal, forward, backward = map(np.asarray, compute(system, parameters.c))
    behind = np.tril(np.ones((length, length), bool))
    nothing = 1e-13 * np.abs(causal).max() if method == "fft" else 0.0  # a transform rounds
    for jacobian, reach in ((causal, behind), (forward, behind), (backward, ~behind)):
        assert np.abs(jacobian[~reach]).max() <= nothing
        assert np.abs(jacobian[reach]).min() > 1e-6
    np.testing.assert_allclose(forward, causal, atol=1e-12)


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("sharded.py"))
    # Which eight devices cannot share.
    assert report["fft of five rows"]["error"] < 1e-5
    assert len(report["rows"]) == 4
    for case, seen in report["rows"].items():
        assert seen["error"] < 1e-5, case
        assert seen["shard"] == [2, 64, 4], case  # 16 rows on 8 devices
        # Rows are exchanged for features and back, and gradients summed up. What is gathered are
        # numbers of segments, and gradients of features.
        assert seen["collectives"] == ["all-gather", "all-reduce", "all-to-all"], case
        packed = {"s32[8,64]"} if "packed" in case else set()
        assert set(seen["gathered"]) == {"c64[2,4]", *packed}, case
    assert len(report["sequence"]) == 6
    for case, seen in enumerate(report["sequence"]):
        assert seen["error"] < 1e-5, case
        # What is gathered along sequences are two whole numbers of each row and shard.
        along = {shape for shape in seen["gathered"] if shape.startswith("s32")}
        assert all(shape.count(",") == 1 for shape in along), (case, along)
        if case < 4:  # Without the tensor axis, whose features come together in the end.
            assert set(seen["gathered"]) == along, case
    assert [seen["shard"] for seen in report["sequence"]] == [
        [16, 8, 4],
        [16, 8, 4],
        [16, 8, 4],
        [8, 16, 4],
        [8, 32, 4],
        [8, 64, 4],
    ]


def test_another_method_is_refused():
    parameters = small_parameters(1)
    system = StateSpace(*parameters[:4])
    with pytest.raises(ValueError, match=r"method = 'chunk'.*'chunked'"):
        convolve(
            discretize(system, "bilinear"),
            readout(parameters.c),
            np.zeros((1, 3, 4), np.float32),
            method="chunk",
        )
