"""Properties of the encoder-decoder that hold whatever its weights are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.aot import hlo
from spade_jax.config import AttentionConfig, EncoderDecoderConfig, ModelConfig, StackConfig
from spade_jax.mixers import S4, Window
from spade_jax.mixers.base import Context
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.presets import preset

VOCAB = 24
CONFIG = EncoderDecoderConfig(
    vocab_size=VOCAB,
    d_model=16,
    d_ff=24,
    encoder=StackConfig("s4+window:concat, 2*window"),
    decoder=StackConfig("2*full"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)
# One layer of each kind, where several are as good.
SMALL = dataclasses.replace(
    CONFIG, encoder=StackConfig("s4+window:concat"), decoder=StackConfig("full")
)


def tokens(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, VOCAB, shape, dtype=np.int32)


def split(config: ModelConfig):
    graph, state = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))
    return graph, nnx.to_pure_dict(state)


@pytest.fixture(scope="module")
def model():
    return split(CONFIG)


@pytest.fixture(scope="module")
def loss_and_grads(model):
    """Loss of the model of some configuration, with all gradients; parameters are the same, and
    what dropout drops."""
    encoder, decoder = tokens(1, 2, 21), tokens(2, 2, 7)

    def compute(config: ModelConfig):
        graph, key = split(config)[0], jax.random.key(3)

        def loss(params):
            logits = nnx.merge(graph, params)(encoder, decoder, dropout_key=key)
            return -jnp.mean(jax.nn.log_softmax(logits)[..., 3])

        return jax.jit(jax.value_and_grad(loss))(model[1])

    return functools.cache(compute)


def assert_trees_close(actual, expected, rtol=2e-5):
    for (path, a), (_, e) in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves_with_path(expected), strict=True
    ):
        scale = np.abs(e).max() + 1e-7
        np.testing.assert_allclose(a / scale, e / scale, atol=rtol, err_msg=str(path))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scan_layers": True}, id="scanned"),
        pytest.param({"remat": "full"}, id="remat-full"),
        pytest.param({"remat": "dots"}, id="remat-dots", marks=pytest.mark.slow),
    ],
)
def test_execution_does_not_change_the_numbers(loss_and_grads, changes):
    config = dataclasses.replace(CONFIG, dropout_rate=0.2)
    expected = loss_and_grads(config)
    assert_trees_close(loss_and_grads(dataclasses.replace(config, **changes)), expected)


def compiled_gradient(remat, layers, length, **changes):
    """By the parameters of a model with these encoder layers, of inputs of this length."""
    changes = {"remat": remat, "encoder": StackConfig(layers)} | changes
    graph, params = split(dataclasses.replace(SMALL, **changes))

    def loss(params):
        return nnx.merge(graph, params)(tokens(1, 2, length), tokens(2, 2, 7)).sum()

    return jax.jit(jax.grad(loss)).lower(params).compile()


@pytest.mark.slow
def test_remat_keeps_less_in_memory():
    def temporary(remat):
        return compiled_gradient(remat, "24*window", 512).memory_analysis().temp_size_in_bytes

    assert temporary("full") < 0.5 * temporary("none")


def test_remat_of_dots_computes_no_matmul_of_a_layer_again():
    """In loops, where attention computes its own scores again in any case."""
    loops = {"scan_layers": True, "decoder": StackConfig("2*full")}

    def operations(remat):
        program = compiled_gradient(remat, "2*window", 32, **loops)
        return hlo.count(program.as_text(), {"data": 1}).flops

    assert operations("none") == operations("dots") < operations("full")


def test_remat_holds_without_a_loop():
    """Left to itself, XLA keeps scores of attention that its gradient computes again."""

    def operations(remat):
        program = compiled_gradient(remat, "2*window", 32, scan_layers=False)
        return hlo.count(program.as_text(), {"data": 1}).flops

    assert operations("none") < operations("dots") < operations("full")


def test_complex_states_can_be_kept():
    """As the diagonal state space has them."""
    s4 = dataclasses.replace(SMALL.mixers["s4"], init="diag-lin")
    mixers = {**SMALL.mixers, "s4": s4}
    graph, params = split(
        dataclasses.replace(SMALL, remat="dots", mixers=mixers, encoder=StackConfig("s4"))
    )

    def loss(params):
        return nnx.merge(graph, params)(tokens(1, 2, 300), tokens(2, 2, 7)).sum()

    assert "name=state space" in str(jax.make_jaxpr(jax.grad(loss))(params))


def run(model, *args, **kwargs):
    graph, params = model
    return jax.jit(lambda p: nnx.merge(graph, p)(*args, **kwargs))(params)


def test_padding_changes_nothing(model):
    encoder, decoder = tokens(4, 1, 19), tokens(5, 1, 6)
    expected = run(model, encoder, decoder)
    padded = run(
        model,
        np.pad(encoder, ((0, 0), (0, 14)), constant_values=7),
        np.pad(decoder, ((0, 0), (0, 3)), constant_values=9),
        encoder_segment_ids=jnp.arange(33)[None] < 19,
        decoder_segment_ids=jnp.arange(9)[None] < 6,
    )
    np.testing.assert_allclose(padded[:, :6], expected, atol=2e-5)


def test_packed_examples_do_not_see_each_other():
    """Three examples in one row, at borders that are no chunk's and no block's, and padding."""
    graph, params = split(SMALL)
    encoder_lengths, decoder_lengths = [13, 6, 18], [5, 1, 4]
    examples = [
        (tokens(10 + i, 1, a), tokens(20 + i, 1, b))
        for i, (a, b) in enumerate(zip(encoder_lengths, decoder_lengths))
    ]

    def segments(lengths, padding):
        ids = np.repeat([1, 2, 3], lengths)
        return np.pad(ids, (0, padding))[None].astype(np.int32)

    def pack(parts, padding):
        return np.pad(np.concatenate(parts, axis=1), ((0, 0), (0, padding)))

    def total(params):
        logits = nnx.merge(graph, params)(
            pack([e for e, _ in examples], 4),
            pack([d for _, d in examples], 2),
            encoder_segment_ids=segments(encoder_lengths, 4),
            decoder_segment_ids=segments(decoder_lengths, 2),
        )
        return jnp.sum(jnp.sin(logits[:, :-2])), logits[:, :-2]

    def separately(params):
        logits = [nnx.merge(graph, params)(e, d) for e, d in examples]
        return sum(jnp.sum(jnp.sin(part)) for part in logits), jnp.concatenate(logits, axis=1)

    (_, packed), packed_grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    (_, apart), grads = jax.jit(jax.value_and_grad(separately, has_aux=True))(params)
    np.testing.assert_allclose(packed, apart, atol=2e-5)
    assert_trees_close(packed_grads, grads, rtol=1e-4)


def test_decoder_is_causal_and_encoder_is_not(model):
    graph, params = model
    encoder, decoder = tokens(6, 1, 40), tokens(7, 1, 8)

    @jax.jit
    def dependence(params):
        model = nnx.merge(graph, params)
        encoded = model.encode(encoder)
        changed = jnp.asarray(decoder).at[0, 5].set(decoder[0, 5] % (VOCAB - 1) + 1)
        moved = jnp.abs(model.decode(changed, encoded) - model.decode(decoder, encoded)).max(-1)
        far = jnp.asarray(encoder).at[0, 39].set(encoder[0, 39] % (VOCAB - 1) + 1)
        return moved[0], jnp.abs(model.encode(far) - encoded).max(-1)[0]

    decoder_moved, encoder_moved = dependence(params)
    assert np.all(decoder_moved[:5] == 0)
    assert np.all(decoder_moved[5:] > 0)
    # Three windows of radius 3 reach 9 tokens; the state space reaches them all.
    assert np.all(encoder_moved > 0)


def test_without_the_state_space_the_encoder_is_local():
    graph, params = split(dataclasses.replace(CONFIG, encoder=StackConfig("3*window")))
    encoder = tokens(6, 1, 40)
    far = encoder.copy()
    far[0, 39] = far[0, 39] % (VOCAB - 1) + 1
    encode = jax.jit(lambda p, t: nnx.merge(graph, p).encode(t))
    moved = np.abs(encode(params, far) - encode(params, encoder)).max(-1)[0]
    assert np.all(moved[:30] == 0)
    assert np.all(moved[30:] > 0)


def test_t5_begins_at_the_loss_of_the_uniform_distribution():
    graph, params = split(preset("tiny", vocab_size=VOCAB))
    logits = jax.jit(lambda p: nnx.merge(graph, p)(tokens(1, 8, 64), tokens(2, 8, 32)))(params)
    targets = tokens(3, 8, 32)[..., None]
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets, axis=-1)
    # Logits of unit variance add 1/2 to the entropy.
    assert abs(losses.mean() - np.log(VOCAB) - 0.5) < 0.2


def test_bfloat16_follows_float32(model):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    encoder, decoder = tokens(8, 2, 30), tokens(9, 2, 6)
    exact = run(model, encoder, decoder)
    rounded = run((split(config)[0], model[1]), encoder, decoder)
    assert rounded.dtype == jnp.float32
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.04  # bfloat16 has 8 bits; were it not rounding at all, it would be 0


def test_state_space_and_norms_are_float32_inside():
    """On bfloat16 input a norm does what it does in float32, and rounds once, at the end; the state
    space rounds what it multiplies tokens with, too, and no more."""
    from spade_jax.elements import Norm

    x = jax.random.normal(jax.random.key(0), (2, 50, 16)).astype(jnp.bfloat16)
    s4 = CONFIG.mixers["s4"].build(CONFIG, CONFIG.encoder, causal=False, rngs=nnx.Rngs(0))
    context = Context(None, jnp.arange(50)[None], 0, {})
    for layer, roundings in ((Norm(CONFIG), 0), (lambda x: s4(x, context)[0], 2)):
        rounded, exact = layer(x), layer(x.astype(jnp.float32))
        assert rounded.dtype == jnp.bfloat16
        assert exact.dtype == jnp.float32
        error = jnp.abs(rounded.astype(jnp.float32) - exact.astype(jnp.bfloat16)).max()
        assert error <= roundings * 2**-8 * jnp.abs(exact).max()


def test_parameters_are_float32_and_name_their_axes(model):
    state = nnx.state(EncoderDecoder(dataclasses.replace(CONFIG, dtype="bfloat16"), nnx.Rngs(0)))
    for path, variable in nnx.to_flat_state(state):
        assert variable.dtype == jnp.float32, path
        stacked = variable.ndim - len(variable.axes)
        assert stacked == int(path[:2] in {("encoder", "layers_1"), ("decoder", "layers_0")}), path


def test_memory_is_linear_in_the_input_length():
    """There is no array of l x l, forward or backward: temporary bytes per token do not grow."""
    graph, params = split(
        dataclasses.replace(SMALL, mixers={**SMALL.mixers, "s4": S4(state_size=8)})
    )

    def temporary(length: int) -> int:
        def loss(params, encoder):
            return nnx.merge(graph, params)(encoder, tokens(2, 1, 7)).sum()

        shape = jax.ShapeDtypeStruct((1, length), jnp.int32)
        compiled = jax.jit(jax.grad(loss)).lower(params, shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    lengths = [4096, 8192, 32768]
    sizes = [temporary(length) for length in lengths]
    growth = np.diff(sizes) / np.diff(lengths)
    assert growth.min() > 0
    assert growth.max() / growth.min() < 1.05, sizes


def test_learned_positions_count_within_segments():
    decoder = StackConfig("full", relative_bias="none", positions="learned", max_positions=8)
    graph, params = split(dataclasses.replace(SMALL, decoder=decoder))
    encoder, one, two = tokens(1, 1, 9), tokens(2, 1, 4), tokens(3, 1, 3)

    def logits(decoder_tokens, **kwargs):
        return jax.jit(lambda p: nnx.merge(graph, p)(encoder, decoder_tokens, **kwargs))(params)

    packed = logits(
        np.concatenate([one, two], axis=1),
        decoder_positions=np.array([[0, 1, 2, 3, 0, 1, 2]]),
        decoder_segment_ids=np.array([[1, 1, 1, 1, 2, 2, 2]]),
    )
    # Without encoder segments every decoder segment sees the whole input.
    np.testing.assert_allclose(packed[:, :4], logits(one), atol=2e-5)
    np.testing.assert_allclose(packed[:, 4:], logits(two), atol=2e-5)
    with pytest.raises(ValueError, match="sequence length = 9: must be at most max_positions = 8"):
        logits(tokens(4, 1, 9))


def test_untied_output():
    graph, params = split(dataclasses.replace(SMALL, tie_embeddings=False, scale_logits=False))
    assert params["output"].shape == params["embedding"].shape
    params["output"] = np.zeros_like(params["output"])
    logits = run((graph, params), tokens(1, 1, 9), tokens(2, 1, 4))
    np.testing.assert_array_equal(logits, 0)
