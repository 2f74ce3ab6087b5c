"""What a language model writes behind prompts, against the whole model run anew for each token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig, ConfigError, DecoderOnlyConfig, StackConfig
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.lines import Stream, one_line
from spade_jax.decoding.sampling import begin
from spade_jax.mixers import S4, Window
from spade_jax.models.decoder_only import DecoderOnly

END, VOCAB, LENGTH = 1, 20, 24
CONFIG = DecoderOnlyConfig(
    vocab_size=24,  # of which the last four mean nothing
    d_model=16,
    d_ff=24,
    decoder=StackConfig("s4+window:concat, 2*window"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
    scale_embeddings=True,
)


def made(config=CONFIG):
    """A model whose texts are of several lengths, and to which meaningless tokens are likely."""
    graph, state = nnx.split(DecoderOnly(config, nnx.Rngs(3)))
    params = nnx.to_pure_dict(state)
    scale = jnp.full(24, 6.0).at[END].set(15.0).at[VOCAB:].set(18.0)
    params["embedding"] = params["embedding"] * scale[:, None]
    return (lambda params: nnx.merge(graph, params)), params


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def prompts():
    """Shorter and longer than the window, than a piece, and one with an end within."""
    random = np.random.default_rng(1)
    own = [[END, *random.integers(2, VOCAB, size).tolist()] for size in (35, 41, 70, 38)]
    own[3][20] = END
    return own


def greedy(model, params, prompts):
    """The likeliest tokens, each by the whole model over all before."""
    run = jax.jit(lambda params, tokens: model(params)(tokens)[..., :VOCAB].argmax(-1))
    texts, ended = [list(prompt) for prompt in prompts], np.zeros(len(prompts), bool)
    for _ in range(LENGTH):
        padded = np.array([text + [0] * (100 - len(text)) for text in texts])
        likeliest = np.asarray(run(params, padded))
        for row, text in enumerate(texts):
            text.append(0 if ended[row] else int(likeliest[row, len(text) - 1]))
            ended[row] |= text[-1] == END
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts)]


def continuation(model, **how):
    return Continuation(
        model, DecodingConfig(max_length=LENGTH, **how), end_id=END, vocab_size=VOCAB
    )


@pytest.mark.parametrize("layers", ["s4+window:concat, 2*window", "full, window"])
def test_prompts_of_unequal_lengths(layers, prompts):
    model, params = made(dataclasses.replace(CONFIG, decoder=StackConfig(layers)))
    written = continuation(model)(params, prompts)
    *expected, empty = greedy(model, params, [*prompts, [END]])
    np.testing.assert_array_equal(written, expected)
    assert len({row.index(END) if END in row else LENGTH for row in expected}) > 1
    # One alone, the shortest there is, and rows that fill up a batch.
    alone = continuation(model)
    np.testing.assert_array_equal(alone(params, prompts[:1], rows=2), expected[:1])
    np.testing.assert_array_equal(alone(params, [[END]])[0], empty)


def test_a_stream_is_the_same_in_pieces(model, prompts):
    model, params = model
    whole = continuation(model)(params, prompts)
    rows = np.zeros_like(whole)
    for row, place, tokens in continuation(model).stream(params, prompts, stride=5):
        assert 0 < len(tokens) <= 5
        rows[row, place : place + len(tokens)] = tokens
    np.testing.assert_array_equal(rows, whole)


def test_a_cache_is_no_larger_for_a_longer_text(model):
    model, params = model

    def size(length):
        cache = jax.eval_shape(lambda p: model(p).init_cache(1, length), params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))

    assert size(1_000) == size(100_000) < 2**15


def test_a_token_copies_neither_cache_nor_parameters():
    """XLA would, of a single row's cache, and of each layer out of those that are stacked."""
    layers = StackConfig("2*full", relative_bias="none")
    model, params = made(dataclasses.replace(CONFIG, decoder=layers))
    write = continuation(model)
    apart = write.apart(params)
    length = 4096
    writing = begin(jnp.ones((1,), jnp.int32), write.empty(apart, 1, length))
    compiled = write.write.lower(apart, writing, np.zeros((1, 8), np.int32), None, count=8)
    # The scores of a layer are its largest array: [heads, length], in float32, and some of them.
    memory = compiled.compile().memory_analysis().temp_size_in_bytes
    assert memory < 6 * 2 * length * 4 < length * 16 * 4


def test_drawn_tokens_have_a_seed(model, prompts):
    model, params = model
    draw = continuation(model, temperature=2.0)
    one, same, other = (draw(params, prompts, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    with pytest.raises(ConfigError, match=r"^decoding.beams = 2: must be 1 with a language model"):
        continuation(model, beams=2)


def test_text_comes_as_it_is_at_the_end():
    vocabulary = load_vocabulary(type("Config", (), {"vocabulary": "bytes", "extra_ids": 4}))
    for text in ("  ein  Café\n\n am  Fluss 河 \n", "", " \n", "a\r\nb <extra_id_2> c"):
        tokens = vocabulary.tokens(text) if "<" in text else vocabulary.encode(text)
        for ids in ([*tokens, END, 70], tokens, [*tokens, 230]):  # 230 begins a letter
            stream = Stream(vocabulary)
            pieces = [stream.add([token]) for token in ids[: [*ids, END].index(END) + 1]]
            whole = "".join([*pieces, stream.add([], last=True)])
            assert whole == one_line(vocabulary.text(ids))
