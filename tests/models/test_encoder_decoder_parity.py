"""The whole encoder-decoder against the authors' MSRLongT5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors import encoder_decoder, our_ids
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Golden, gradient_error, output_error

from spade_jax.decoding.config import SamplingConfig
from spade_jax.decoding.sampling import sample
from spade_jax.interop import names
from spade_jax.interop.authors.pairs import table

NAMES = ["relu_post", "relu_pre", "gated_gelu_post", "gated_gelu_pre_long"]


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """A golden file with its model, split, and its configuration."""
    golden = Golden(f"msrlongt5_{request.param}")
    model, config, _ = encoder_decoder(golden)
    graph, state = nnx.split(model)
    return golden, graph, nnx.to_pure_dict(state), config


def forward(graph, params, golden, tokens):
    """tokens, and logits, in our ids."""
    model = nnx.merge(graph, params)
    mask = jnp.asarray(golden["in/attention_mask"])
    encoded = model.encode(our_ids(golden["in/input_ids"]), segment_ids=mask)
    segments = (tokens != 0).astype(int)
    logits = model.decode(tokens, encoded, encoded_segment_ids=mask, segment_ids=segments)
    return logits, encoded


def test_outputs_loss_and_gradients(case):
    golden, graph, params, config = case
    valid, labels = golden["in/labels_valid"], our_ids(golden["in/labels"])

    def loss(params):
        logits, encoded = forward(graph, params, golden, our_ids(golden["out/decoder_input_ids"]))
        targets = jnp.where(valid != 0, labels, 0)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return jnp.sum(losses[..., 0] * valid) / valid.sum(), (logits, encoded)

    (value, (logits, encoded)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert (
        output_error(encoded, golden["out/encoder_last_hidden_state"], golden["in/attention_mask"])
        < OUTPUT_TOLERANCE
    )
    logits = logits[..., our_ids(np.arange(config.vocab_size))]
    assert output_error(logits, golden["out/logits"], valid) < OUTPUT_TOLERANCE
    assert output_error(value, golden["out/loss"]) < OUTPUT_TOLERANCE

    # The same names lead from our gradients to theirs, of which the file has some.
    stored, compared = golden.group("grad/"), 0
    ours = names.by_layer(grads, config)
    for pair in table("encoder-decoder", config).pairs:
        if pair.theirs in stored:
            found = pair.how.back(np.asarray(ours[pair.ours]))
            assert gradient_error(found, stored[pair.theirs]) < GRADIENT_TOLERANCE, pair.theirs
            compared += 1
    assert compared == len(stored)
    for name, gradient in ours.items():
        if "global_mixer" in name:  # detached
            assert not np.any(gradient), name


def test_greedy_decoding(case):
    golden, graph, params, _ = case
    ids = our_ids(golden["out/greedy_ids"])

    @jax.jit
    def decode(params):
        model = nnx.merge(graph, params)
        mask = jnp.asarray(golden["in/attention_mask"])
        encoded = model.encode(our_ids(golden["in/input_ids"]), segment_ids=mask)
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
