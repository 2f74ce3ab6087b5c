"""The whole encoder-decoder against the authors' MSRLongT5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Golden, gradient_error, output_error
from official_weights import assign, encoder_decoder, encoder_decoder_config

from spade_jax.decoding.config import SamplingConfig
from spade_jax.decoding.sampling import sample
from spade_jax.models.encoder_decoder import EncoderDecoder

PAD = 1
NAMES = ["relu_post", "relu_pre", "gated_gelu_post", "gated_gelu_pre_long"]


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """A golden file with its model, split."""
    golden = Golden(f"msrlongt5_{request.param}")
    model = EncoderDecoder(encoder_decoder_config(golden.config), nnx.Rngs(0))
    model = assign(model, encoder_decoder(golden.group("param/")))
    graph, state = nnx.split(model)
    return golden, graph, nnx.to_pure_dict(state)


def forward(graph, params, golden, tokens):
    model = nnx.merge(graph, params)
    mask = jnp.asarray(golden["in/attention_mask"])
    encoded = model.encode(golden["in/input_ids"], segment_ids=mask)
    segments = (tokens != PAD).astype(int)
    logits = model.decode(tokens, encoded, encoded_segment_ids=mask, segment_ids=segments)
    return logits, encoded


def test_outputs_loss_and_gradients(case):
    golden, graph, params = case
    valid, labels = golden["in/labels_valid"], golden["in/labels"]

    def loss(params):
        logits, encoded = forward(graph, params, golden, golden["out/decoder_input_ids"])
        targets = jnp.where(valid != 0, labels, 0)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return jnp.sum(losses[..., 0] * valid) / valid.sum(), (logits, encoded)

    (value, (logits, encoded)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert (
        output_error(encoded, golden["out/encoder_last_hidden_state"], golden["in/attention_mask"])
        < OUTPUT_TOLERANCE
    )
    assert output_error(logits, golden["out/logits"], valid) < OUTPUT_TOLERANCE
    assert output_error(value, golden["out/loss"]) < OUTPUT_TOLERANCE

    # The same naming maps the authors' gradients; those that the file leaves out are taken from
    # the parameters, whose values no gradient equals, and not compared.
    stored = golden.group("grad/")
    names = encoder_decoder(
        {name: np.full(a.shape, np.nan, np.float32) for name, a in golden.group("param/").items()}
        | stored
    )
    flat = {"/".join(map(str, k)): v for k, v in nnx.traversals.flatten_mapping(grads).items()}
    compared = 0
    for name, expected in names.items():
        for ours, theirs in zip(*_layers(flat[name], expected)):
            if not np.isnan(theirs).any():
                assert gradient_error(ours, theirs) < GRADIENT_TOLERANCE, name
                compared += 1
    assert compared == len(stored)
    for name, gradient in flat.items():
        if "global_mixer" in name:  # detached
            assert not np.any(gradient), name


def _layers(ours, theirs):
    """A stacked parameter, only some of whose layers are stored, as its layers; others whole."""
    partly = np.isnan(theirs).any() and not np.isnan(theirs).all()
    return (ours, theirs) if partly else (ours[None], theirs[None])


def test_greedy_decoding(case):
    golden, graph, params = case
    ids = golden["out/greedy_ids"]

    @jax.jit
    def decode(params):
        model = nnx.merge(graph, params)
        mask = jnp.asarray(golden["in/attention_mask"])
        encoded = model.encode(golden["in/input_ids"], segment_ids=mask)
        length = ids.shape[1] - 1

        def step(tokens, cache):
            logits, cache = model.extend(tokens[:, None], cache)
            return logits[:, 0], cache

        return sample(
            step,
            model.init_cache(encoded, length=length, encoded_segment_ids=mask),
            rows=len(ids),
            length=length,
            end_id=-1,  # The authors' were written to their full length.
            config=SamplingConfig(),
            start_id=golden.config["decoder_start_token_id"],
        )[0]

    np.testing.assert_array_equal(decode(params), ids[:, 1:])
