"""The whole language model against the authors' spade_lm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors import language_model, our_ids
from flax import nnx
from golden_data import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    SSM_GRADIENT_TOLERANCE,
    Golden,
    gradient_error,
    output_error,
)

from spade_jax.interop import names
from spade_jax.interop.authors.pairs import table
from spade_jax.mixers.base import Context
from spade_jax.objectives.causal_lm import CausalLM
from spade_jax.objectives.causal_lm_batch import CausalLMBatch

NAMES = ["concat_pre", "stack_post", "add_every2_pre_nofinalnorm", "adaptive"]
# Of the adaptive file gradients are by C~: these do not depend on which it is.
SAME_BY_C_TILDE = (".B", ".D")


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """A golden file with its model, split, and its configuration."""
    golden = Golden(f"spade_lm_{request.param}")
    model, config, _ = language_model(golden)
    graph, state = nnx.split(model)
    return golden, graph, nnx.to_pure_dict(state), config


def inner_states(model, tokens, valid):
    """What each layer reads, and what the last one gives."""
    decoder, length = model.decoder, tokens.shape[1]
    x = model._embedded(tokens)
    positions = jnp.arange(length)[None]
    context = Context(valid, positions, jnp.int32(0), decoder._biases(length))
    states = [x]
    for block in decoder.blocks():
        states.append(block(states[-1], context)[0])
    return jnp.stack(states)


def test_inner_states_logits_loss_and_gradients(case):
    golden, graph, params, config = case
    valid = golden["in/valid"]
    tokens, targets = our_ids(golden["in/tokens"]), our_ids(golden["in/targets"])

    def loss(params):
        model = nnx.merge(graph, params)
        segments = jnp.asarray(valid, jnp.int32)
        logits = model(tokens, segment_ids=segments)
        sums = CausalLM()(model, CausalLMBatch(tokens, targets, segments, segments), None)
        return sums.loss / sums.tokens, (logits, inner_states(model, tokens, segments))

    (value, (logits, states)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for ours, theirs in zip(states, golden["out/inner_states"], strict=True):
        assert output_error(ours, theirs, valid) < OUTPUT_TOLERANCE
    logits = logits[..., our_ids(np.arange(config.vocab_size))]
    if config.adaptive is None:
        assert output_error(logits, golden["out/logits"], valid) < OUTPUT_TOLERANCE
    else:
        assert output_error(logits, golden["out/log_probs"], valid) < OUTPUT_TOLERANCE
    assert output_error(value, golden["out/loss"]) < OUTPUT_TOLERANCE

    # The same names lead from our gradients to theirs; of the state space those by the raw C.
    stored = golden.group("grad/") | golden.group("gradraw/")
    ours, compared = names.by_layer(grads, config), set()
    for pair in table("language-model", config).pairs:
        state_space = "s4_module" in pair.theirs
        compared.add(pair.theirs)
        if state_space and config.adaptive and not pair.theirs.endswith(SAME_BY_C_TILDE):
            continue
        found = pair.how.back(np.asarray(ours[pair.ours]))
        bound = SSM_GRADIENT_TOLERANCE if state_space else GRADIENT_TOLERANCE
        assert gradient_error(found, stored[pair.theirs]) < bound, pair.theirs
    assert stored.keys() - compared <= {"decoder.output_projection.weight"}
