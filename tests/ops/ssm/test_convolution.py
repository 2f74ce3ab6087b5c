"""The three convolutions and the step, against the authors, the definition and each other."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from definition import (
    PATTERNS,
    Parameters,
    convolve_by_definition,
    dense_system,
    random_parameters,
    seen_pairs,
    segment_patterns,
)
from golden_data import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    SSM_GRADIENT_TOLERANCE,
    Golden,
    gradient_error,
    output_error,
)
from stored import dplr

from spade_jax.ops.ssm.convolution import METHODS, convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout, step
from spade_jax.ops.ssm.hippo import legs_nplr, s4d


def module(params, x, **settings):
    """The authors' S4 module, y_t = (K * u)_t + D u_t, outputs [b, l, channels, d]."""
    kernel = {key.split(".")[-1]: value for key, value in params.items() if "kernel." in key}
    (skip,) = (value for key, value in params.items() if key.split(".")[-1] == "D")
    system, c = dplr(kernel)
    y = convolve(discretize(system, "bilinear"), c, x, chunk_length=8, **settings)
    return y + skip[None, None] * x[:, :, None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name",
    [
        "s4_module_lm_h8",
        "s4_module_lm_h12_ssm1",
        "s4_module_bidir_h8",
        "s4_module_bidir_h12_ssm3",
    ],
)
def test_module_is_that_of_the_authors(name, method):
    golden = Golden(name)
    bidirectional = "bidir" in name
    settings = {
        "method": method,
        "bidirectional": bidirectional,
        "max_kernel_length": golden.config["l_max"],  # some sequences are longer
    }

    def valid(length):
        if bidirectional:
            return golden[f"in/valid_L{length}"]
        return 1 - golden[f"in/padding_mask_L{length}"]

    inputs = {n: (golden[f"in/x_L{n}"], valid(n)) for n in golden.config["Ls"]}

    @jax.jit
    def compute(params, inputs):
        return {
            n: (module(params, x, **settings), module(params, x, segment_ids=mask, **settings))
            for n, (x, mask) in inputs.items()
        }

    for n, (y, y_masked) in compute(golden.group("param/"), inputs).items():
        assert output_error(y[:, :, 0], golden[f"out/y_L{n}"]) < OUTPUT_TOLERANCE, n
        error = output_error(y_masked[:, :, 0], golden[f"out/y_masked_L{n}"], where=valid(n))
        assert error < OUTPUT_TOLERANCE, n


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["s4_module_lm_h8", "s4_module_lm_h12_ssm1"])
def test_gradients_are_those_of_the_authors(name, method):
    golden = Golden(name)
    length = golden.config["Ls"][0]
    tokens = 1.0 - golden[f"in/padding_mask_L{length}"][..., None].astype(np.float32)

    def loss(params, x):
        # Their loss takes the outputs at padding in, so that this is no `segment_ids`.
        y = module(params, x * tokens, method=method, max_kernel_length=golden.config["l_max"])
        return jnp.sum(y[:, :, 0] * golden["in/grad_y"])

    params = golden.group("param/")
    del params["s4.kernel.kernel.L"]
    gradients, x_gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        params, golden[f"in/x_L{length}"]
    )
    assert gradient_error(x_gradient, golden["grad/x"]) < GRADIENT_TOLERANCE
    expected = golden.group("gradraw/")
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        tolerance = GRADIENT_TOLERANCE if key == "s4.D" else SSM_GRADIENT_TOLERANCE
        assert gradient_error(gradient, expected[key]) < tolerance, key


@pytest.mark.parametrize("name", ["s4_module_channels2", "s4_module_channels2_bidir"])
def test_channels_are_those_of_the_authors(name):
    golden = Golden(name)
    bidirectional = golden.config["bidirectional"]

    @jax.jit
    def compute(params, x):
        settings = {"bidirectional": bidirectional, "max_kernel_length": golden.config["l_max"]}
        return {method: module(params, x, method=method, **settings) for method in METHODS}

    for method, y in compute(golden.group("param/"), golden["in/x"]).items():
        y = y.reshape(*y.shape[:2], -1)  # feature channel * H + h
        assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE, method


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


def small_system(rows, dtype=np.float32):
    """A DPLR system of 4 features and state 8, and `rows` readouts for each."""
    parameters = random_parameters(4, 8, 2, rows, True, seed=5, dtype=dtype)
    return parameters, StateSpace(*parameters[:4])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.usefixtures("x64")
def test_padded_is_unpadded_and_packed_is_separate(bidirectional):
    lengths = (12, 1, 9)
    parameters, system = small_system(2 if bidirectional else 1, np.float64)
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
    parameters, system = small_system(2, np.float64)

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


@pytest.mark.parametrize("method", METHODS)
def test_no_product_is_left_to_the_default_precision(method):
    # An accelerator multiplies float32 matrices in bfloat16 unless told otherwise.
    parameters, system = small_system(2)
    segment_ids = segment_patterns(24, 8, ("whole", "anywhere"))

    def loss(system, c, u):
        discrete = discretize(system, "bilinear")
        y = convolve(
            discrete,
            readout(c),
            u,
            method=method,
            chunk_length=8,
            segment_ids=segment_ids,
            bidirectional=True,
            max_kernel_length=10,
        )
        return jnp.sum(y**2)

    u = np.zeros((2, 24, 4), np.float32)
    with jax.enable_x64(True):  # so that a stray float64 would show
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(system, parameters.c, u)
    products, dtypes = [], set()
    for equation in equations(jaxpr.jaxpr):
        dtypes |= {str(v.aval.dtype) for v in equation.outvars}
        if equation.primitive.name == "dot_general":
            products.append(equation.params["precision"])
    highest = jax.lax.Precision.HIGHEST
    assert products
    assert set(products) <= {highest, (highest, highest)}
    assert {t for t in dtypes if "float" in t or "complex" in t} <= {"float32", "complex64"}


def equations(jaxpr):
    """All equations, those of loops, branches and calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


# One rounding of a pole, 6e-8, adds up over what a system with dt = 1e-3 remembers, some 1000
# tokens of S4 and 2000 of S4D.
@pytest.mark.parametrize(
    ("init", "discretization", "tolerance"),
    [("legs", "bilinear", 2e-5), ("diag-lin", "zoh", 1e-4), ("legs", "zoh", 2e-5)],
)
def test_float32_stays_accurate_over_a_long_run(init, discretization, tolerance):
    n, length, cut, dt = 64, 4096, 1000, np.array([1e-3, 1e-2, 1e-1], np.float32)
    w, p, b, _ = legs_nplr(n)
    if init != "legs":
        w, p, b = s4d(init, n), None, np.ones(n // 2)
    random = np.random.default_rng(6)
    c = random.normal(size=(1, 3, n // 2)) + 1j * random.normal(size=(1, 3, n // 2))
    w, p, b = (None if x is None else x[None].astype(np.complex64) for x in (w, p, b))
    parameters = Parameters(w, p, b, dt, c.astype(np.complex64))
    u = random.normal(size=(1, length, 3)).astype(np.float32)

    @jax.jit
    def compute(parameters, u):
        system = discretize(StateSpace(*parameters[:4]), discretization)
        c = readout(parameters.c)
        results = {method: convolve(system, c, u, method=method) for method in METHODS}
        shortened = convolve(system, c, u, max_kernel_length=cut)
        return results, shortened

    results, shortened = compute(parameters, u)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: x.astype(np.promote_types(x.dtype, np.float64)), parameters)
        a, b, c = map(np.asarray, jax.jit(dense_system, static_argnums=1)(exact, discretization))
    taps, state = np.empty((length, 3)), b
    for tap in taps:
        tap[:] = np.einsum("dn,dn->d", c[0], state).real
        state = np.einsum("dij,dj->di", a, state)

    def error(y, count):
        expected = np.stack(
            [np.convolve(u[0, :, i], taps[:count, i])[:length] for i in range(3)], axis=-1
        )
        # Feature by feature: each has a memory of its own length.
        return np.max(np.abs(y[0, :, 0] - expected).max(axis=0) / np.abs(expected).max(axis=0))

    for method, y in results.items():
        assert y.dtype == np.float32
        assert error(y, length) < tolerance, method
    assert error(shortened, cut) < tolerance


def test_memory_grows_with_the_length_and_not_its_square():
    parameters, system = small_system(2)

    def temporary_bytes(length):
        def loss(system, c, u, segment_ids):
            discrete = discretize(system, "bilinear")
            y = convolve(
                discrete,
                readout(c),
                u,
                chunk_length=8,
                segment_ids=segment_ids,
                bidirectional=True,
            )
            return jnp.sum(y**2)

        u = jax.ShapeDtypeStruct((1, length, 4), np.float32)
        ids = jax.ShapeDtypeStruct((1, length), np.int32)
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(system, parameters.c, u, ids)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    lengths = np.array([4096, 16384, 32768])
    sizes = np.array([temporary_bytes(length) for length in lengths])
    per_token = np.diff(sizes) / np.diff(lengths)
    np.testing.assert_allclose(per_token[1], per_token[0], rtol=0.05)
    assert sizes[-1] < 8.1 * sizes[0]
    assert sizes[-1] < 4 * 32768**2 / 8  # far from one float for each pair of tokens


def test_eight_devices_give_what_one_gives(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("sharded.py"))
    # Which eight devices cannot share.
    assert report["fft of five rows"]["error"] < 1e-5
    assert len(report["rows"]) == 4
    for case, seen in report["rows"].items():
        assert seen["error"] < 1e-5, case
        assert seen["shard"] == [2, 64, 4], case  # 16 rows on 8 devices
        assert seen["collectives"] == ["all-reduce"], case  # Sums of gradients; no gathering.
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
    parameters, system = small_system(1)
    with pytest.raises(ValueError, match=r"method = 'chunk'.*'chunked'"):
        convolve(
            discretize(system, "bilinear"),
            readout(parameters.c),
            np.zeros((1, 3, 4), np.float32),
            method="chunk",
        )
