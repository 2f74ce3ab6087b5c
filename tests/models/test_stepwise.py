"""The decoder token by token gives what the whole decoder gives at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.layers.stack import Stack
from spade_jax.mixers import S4, Window
from spade_jax.mixers.base import map_rows
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.presets import preset

VOCAB, BATCH, INPUTS, TARGETS = 24, 3, 17, 14
CONFIG = EncoderDecoderConfig(
    vocab_size=VOCAB,
    d_model=16,
    d_ff=24,
    encoder=StackConfig("s4+window:concat"),
    decoder=StackConfig("2*full"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)
# Three rows: one segment; several of them, with padding between; padding at the end.
SEGMENTS = np.array(
    [
        [1] * 14,
        [1, 1, 1, 0, 2, 2, 2, 2, 2, 3, 3, 3, 3, 0],
        [1, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0],
    ],
    np.int32,
)
INPUT_SEGMENTS = np.array(
    [[1] * 17, [1] * 5 + [2] * 4 + [3] * 7 + [0], [1] * 3 + [2] * 9 + [0] * 5], np.int32
)


def tokens(seed, *shape):
    return np.random.default_rng(seed).integers(1, VOCAB, shape, dtype=np.int32)


def positions_in(segments):
    """0, 1, … from the beginning of each segment on, [b, l]."""
    index = np.arange(segments.shape[1])
    begins = np.diff(segments, axis=1, prepend=0) != 0
    return (index - np.maximum.accumulate(np.where(begins, index, 0), axis=1)).astype(np.int32)


def both(config, *, segments=None, input_segments=None, length=TARGETS):
    """Logits [b, t, v] of the whole decoder, and token by token."""
    graph, state = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))
    inputs, targets = tokens(1, BATCH, INPUTS), tokens(2, BATCH, TARGETS)

    @jax.jit
    def compute(state):
        model = nnx.merge(graph, state)
        packed = input_segments is not None
        encoded = model.encode(
            inputs,
            segment_ids=input_segments,
            positions=positions_in(input_segments) if packed else None,
        )
        at_once = model.decode(
            targets,
            encoded,
            segment_ids=segments,
            positions=None if segments is None else positions_in(segments),
            encoded_segment_ids=input_segments,
        )
        cache = model.init_cache(encoded, length=length, encoded_segment_ids=input_segments)

        def token(cache, inputs):
            tokens, *places = (array[:, None] for array in inputs)
            logits, cache = model.extend(
                tokens, cache, **dict(zip(("segment_ids", "positions"), places))
            )
            return cache, logits[:, 0]

        by_token = () if segments is None else (segments, positions_in(segments))
        arguments = tuple(jnp.asarray(array).T for array in (targets, *by_token))
        _, logits = jax.lax.scan(token, cache, arguments)
        return at_once, jnp.swapaxes(logits, 0, 1)

    return compute(state)


@pytest.mark.parametrize(
    "decoder",
    [
        StackConfig("2*full"),
        StackConfig("window, full"),
        StackConfig("full", positions="learned", max_positions=TARGETS),
    ],
)
def test_token_by_token_is_at_once(decoder):
    config = dataclasses.replace(CONFIG, decoder=decoder)
    at_once, by_token = both(config, segments=SEGMENTS, input_segments=INPUT_SEGMENTS)
    counted = SEGMENTS != 0
    np.testing.assert_allclose(by_token[counted], at_once[counted], atol=2e-5)
    assert np.std(at_once) > 0.1


@pytest.mark.parametrize(
    ("layers", "changes"),
    [
        ("s4+window:concat", {"max_kernel_length": 5}),
        ("s4+window:concat", {"max_kernel_length": TARGETS}),
        ("s4+window:concat", {"init": "diag-lin"}),
        ("s4+window:concat", {"discretization": "zoh"}),
    ],
)
def test_stacks_with_a_state_space(layers, changes):
    s4 = dataclasses.replace(CONFIG.mixers["s4"], **changes)
    config = dataclasses.replace(CONFIG, mixers={**CONFIG.mixers, "s4": s4})
    stack = Stack(config, StackConfig(layers), causal=True, cross_attention=False, rngs=nnx.Rngs(0))
    graph, state = nnx.split(stack)
    x = np.random.default_rng(3).normal(size=(BATCH, TARGETS, 16)).astype(np.float32)
    segments = jnp.asarray(SEGMENTS)

    @jax.jit
    def compute(state):
        stack = nnx.merge(graph, state)

        def token(cache, inputs):
            y, cache = stack(inputs[0][:, None], segment_ids=inputs[1][:, None], cache=cache)
            return cache, y[:, 0]

        arguments = (jnp.swapaxes(x, 0, 1), segments.T)
        _, y = jax.lax.scan(token, stack.init_cache(BATCH, TARGETS), arguments)
        return stack(x, segment_ids=segments)[0], jnp.swapaxes(y, 0, 1)

    at_once, by_token = compute(state)
    counted = SEGMENTS != 0
    np.testing.assert_allclose(by_token[counted], at_once[counted], atol=2e-5)


def test_a_longer_cache_than_is_used_changes_nothing():
    config = dataclasses.replace(CONFIG, decoder=StackConfig("window, full"))
    at_once, by_token = both(config, length=40)
    np.testing.assert_allclose(by_token, at_once, atol=2e-5)


def test_the_authors_flavour_with_its_learned_positions():
    config = preset(
        "tiny",
        flavour="msr",
        vocab_size=VOCAB,
        d_model=16,
        d_ff=24,
        mixers={"window": Window(3)},
        attention=dataclasses.replace(
            preset("tiny", flavour="msr", vocab_size=VOCAB).attention, num_heads=2
        ),
    )
    at_once, by_token = both(config)
    np.testing.assert_allclose(by_token, at_once, atol=2e-5)
    too_long = config.decoder.max_positions + 1
    with pytest.raises(ValueError, match=rf"sequence length = {too_long}: must be at most"):
        both(config, length=too_long)


def test_several_decoder_rows_read_one_row_of_the_encoder_and_caches_can_be_picked_from():
    """Rows are swapped between tokens, as beam search does; the logits must follow."""
    config = dataclasses.replace(CONFIG, decoder=StackConfig("window, 2*full"))
    graph, state = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))
    inputs, targets = tokens(1, 2, INPUTS), tokens(2, 4, 6)
    segments = np.array([[1] * 17, [1] * 9 + [0] * 8], np.int32)
    swap = np.array([1, 0, 3, 2])

    @jax.jit
    def compute(state):
        model = nnx.merge(graph, state)
        encoded = model.encode(inputs, segment_ids=segments)
        cache = model.init_cache(encoded, length=6, encoded_segment_ids=segments, rows_each=2)
        logits = []
        for i in range(6):
            order = swap if i % 2 else np.arange(4)
            logits_i, cache = model.extend(jnp.asarray(targets[order, i])[:, None], cache)
            logits.append(logits_i[order, 0])
            cache = map_rows(lambda array: array[swap], cache)
        at_once = model.decode(
            targets, jnp.repeat(encoded, 2, axis=0), encoded_segment_ids=segments.repeat(2, axis=0)
        )
        return at_once, jnp.stack(logits, axis=1)

    at_once, by_token = compute(state)
    np.testing.assert_allclose(by_token, at_once, atol=2e-5)


def test_bfloat16_keeps_its_cache_in_bfloat16():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    graph, state = nnx.split(nnx.eval_shape(lambda: EncoderDecoder(config, nnx.Rngs(0))))

    def first_cache(state):
        model = nnx.merge(graph, state)
        return model.init_cache(model.encode(tokens(1, BATCH, INPUTS)), length=4)

    layers = jax.eval_shape(first_cache, state).layers
    cache = jax.tree.leaves([own.rows for layer in layers for own in layer.values()])
    assert {str(array.dtype) for array in cache} == {"bfloat16", "int32"}
    at_once, by_token = both(config)
    assert at_once.dtype == by_token.dtype == jnp.float32
    np.testing.assert_allclose(by_token, at_once, atol=0.1)
