from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import (
    AttentionConfig,
    ConfigError,
    EncoderDecoderConfig,
    StackConfig,
)
from spade_jax.decoding.beam_search import length_penalty
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import bucket_length, generate, make_generator
from spade_jax.mixers import S4, Window
from spade_jax.models.encoder_decoder import EncoderDecoder

END, VOCAB = 1, 20
CONFIG = EncoderDecoderConfig(
    vocab_size=24,  # of which the last four mean nothing
    d_model=16,
    d_ff=24,
    encoder=StackConfig("s4+window:concat"),
    decoder=StackConfig("2*full"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)


@pytest.fixture(scope="module")
def model():
    """A model whose outputs are of several lengths, and to which meaningless tokens are likely."""
    graph, state = nnx.split(EncoderDecoder(CONFIG, nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)
    scale = jnp.full(24, 3.0).at[END].set(14.0).at[VOCAB:].set(9.0)
    params["embedding"] = params["embedding"] * scale[:, None]
    return graph, params


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    return [[*random.integers(2, VOCAB, size), END] for size in (5, 30, 1, 12, 17)]


def log_probabilities(model, inputs, outputs):
    """Of each token of outputs [b, t] given those before, [b, t, v], by the whole model."""
    graph, params = model
    longest = max(map(len, inputs))
    encoder = np.array([[*x, *[0] * (longest - len(x))] for x in inputs], np.int32)
    shifted = np.pad(outputs, ((0, 0), (1, 0)))[:, :-1]

    @jax.jit
    def compute(params):
        segments = (encoder != 0).astype(int)
        return nnx.merge(graph, params)(encoder, shifted, encoder_segment_ids=segments)

    return np.asarray(jax.nn.log_softmax(compute(params)[..., :VOCAB]))


def until_end(row):
    row = list(row)
    return row[: row.index(END) + 1] if END in row else row


def generator(model, batch_size=5, **settings):
    graph, _ = model
    traced = []

    def make(params):
        traced.append(params)
        return nnx.merge(graph, params)

    config = DecodingConfig(max_length=10, **settings)
    write = make_generator(
        make, config, end_id=END, vocab_size=VOCAB, batch_size=batch_size, input_length=200
    )
    return write, traced


def test_greedy_is_what_the_whole_model_finds_likeliest(model, inputs):
    write, _ = generator(model)
    outputs = write(model[1], inputs)
    likeliest = log_probabilities(model, inputs, outputs).argmax(-1)
    lengths = set()
    for row, expected in zip(outputs, likeliest):
        written = until_end(row)
        assert written == list(expected[: len(written)])
        assert not row[len(written) :].any()
        lengths.add(len(written))
    assert len(lengths) > 1


def test_scores_of_beam_search_are_those_of_the_whole_model(model, inputs):
    graph, params = model
    longest = max(map(len, inputs))
    tokens = np.array([[*x, *[0] * (longest - len(x))] for x in inputs], np.int32)
    config = DecodingConfig(max_length=10, beams=3)

    @jax.jit
    def search(params):
        model = nnx.merge(graph, params)
        return generate(model, jnp.asarray(tokens), config, end_id=END, vocab_size=VOCAB)

    outputs, scores = map(np.asarray, search(params))
    every = log_probabilities(model, inputs, outputs)
    for row, score, found in zip(outputs, scores, every):
        written = until_end(row)
        total = found[np.arange(len(written)), written].sum()
        assert score == pytest.approx(float(total / length_penalty(len(written), 0.6)), rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"beams": 2}], ids=["greedy", "beam"])
def test_batches_make_no_difference_and_a_bucket_is_compiled_once(model, inputs, settings):
    write, traced = generator(model, **settings)
    together = write(model[1], inputs)
    assert len(traced) == 1
    apart = np.concatenate([write(model[1], inputs[:1]), write(model[1], inputs[1:])])
    assert len(traced) == 1  # all within the bucket of 32
    np.testing.assert_array_equal(apart, together)
    write(model[1], [inputs[1] * 2])
    assert len(traced) == 2


def test_buckets():
    lengths = [bucket_length(n, 1500) for n in (1, 32, 33, 64, 65, 1000, 1100)]
    assert lengths == [32, 32, 64, 64, 128, 1024, 1500]
    assert bucket_length(5, 20) == 20


def test_meaningless_tokens_are_never_written(model, inputs):
    write, _ = generator(model, temperature=30.0)
    outputs = write(model[1], inputs, jax.random.key(0))
    assert outputs.max() < VOCAB
    assert len(np.unique(outputs)) > 8
    np.testing.assert_array_equal(outputs, write(model[1], inputs, jax.random.key(0)))
    assert (outputs != write(model[1], inputs, jax.random.key(1))).any()


@pytest.mark.slow
def test_eight_devices_write_what_one_does(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_decode.py"))
    assert sorted(report) == ["beam", "greedy"]
    for method, (alone, together, cut) in report.items():
        assert together == alone, method
        assert cut == alone, method  # Heads, the vocabulary and the inputs in pieces.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, r"decoding\.max_length = 0: must be at least 1"),
        ({"beams": 0}, r"decoding\.beams = 0: must be at least 1"),
        (
            {"beams": 2, "temperature": 1.0},
            r"decoding\.temperature = 1\.0: must be 0 with .*beams = 2",
        ),
        ({"length_penalty": -1.0}, r"decoding\.length_penalty = -1\.0"),
        ({"top_p": 1.5}, r"decoding\.top_p = 1\.5"),
    ],
)
def test_settings_that_cannot_be_are_rejected(settings, message):
    with pytest.raises(ConfigError, match=message):
        DecodingConfig(**settings)


def test_more_beams_than_tokens_are_rejected(model, inputs):
    write, _ = generator(model, beams=VOCAB + 1)
    with pytest.raises(ConfigError, match="beams = 21: must be at most 20, the size of the vocab"):
        write(model[1], inputs)
