"""What every mixer must do, alone and in stacks with others; a new one only adds a pattern."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stacks import PATTERNS, inputs, model, stack

from spade_jax.config import StackConfig
from spade_jax.models.build import builder
from spade_jax.models.flops import stack_flops
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.optimizer import ParameterKind
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import abstract_model, make_trainer
from spade_jax.trees import paths

CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["both-ways", "causal"])
EVERY = pytest.mark.parametrize("pattern", PATTERNS)
# Those whose operations have tests of their own in both directions, and the one that costs little.
ONE_WAY = {"chunk": False, "ema": False, "mega": False, "full_mega": True}


def costs_much(pattern, causal):
    if "+" in pattern:
        return not (causal and ":concat" in pattern)
    return ONE_WAY.get(pattern, causal) != causal


# Mixers together compute what they do apart: each alone, and SPADE, is enough where it costs much.
EVERY_WAY = pytest.mark.parametrize(
    ("pattern", "causal"),
    [
        pytest.param(
            pattern,
            causal,
            id=f"{'causal' if causal else 'both-ways'}-{pattern}",
            marks=[pytest.mark.slow] if costs_much(pattern, causal) else [],
        )
        for causal in (False, True)
        for pattern in PATTERNS
    ],
)
TOLERANCE = 2e-5

# At borders that are no chunk's, no block's and no window's; padding between two and at the end.
LENGTHS = (7, 1, 9)
SEGMENTS = np.array([[1] * 7 + [2] + [0] * 2 + [3] * 9 + [0] * 2], np.int32)


def runner(pattern, causal, **changes):
    graph, state = stack(pattern, causal, **changes)

    @jax.jit
    def run(state, x, segment_ids=None):
        return nnx.merge(graph, state)(x, segment_ids=segment_ids)[0]

    return run, state


@EVERY_WAY
def test_packed_is_separate_and_padded_is_unpadded(pattern, causal):
    """In value and in the gradient by every parameter."""
    graph, state = stack(pattern, causal)
    x = inputs(1, SEGMENTS.shape[1])
    weights = inputs(1, SEGMENTS.shape[1], seed=1)

    def loss(state, x, segment_ids, weights):
        y, _ = nnx.merge(graph, state)(x, segment_ids=segment_ids)
        counted = jnp.where(segment_ids[..., None] != 0, y, 0)
        return jnp.sum(counted * weights), counted

    def separately(state):
        total, parts = 0.0, []
        for segment in (1, 2, 3):
            (own,) = np.nonzero(SEGMENTS[0] == segment)
            ones = jnp.ones((1, len(own)), jnp.int32)
            value, y = loss(state, x[:, own], ones, weights[:, own])
            total, parts = total + value, [*parts, y]
        return total, jnp.concatenate(parts, axis=1)

    @jax.jit
    def compute(state):
        whole = jax.value_and_grad(loss, has_aux=True)(state, x, jnp.asarray(SEGMENTS), weights)
        return whole, jax.value_and_grad(separately, has_aux=True)(state)

    ((_, packed), packed_gradients), ((_, apart), gradients) = compute(state)
    np.testing.assert_allclose(packed[:, SEGMENTS[0] != 0], apart, atol=TOLERANCE)
    for (path, one), (_, other) in zip(
        jax.tree.leaves_with_path(packed_gradients),
        jax.tree.leaves_with_path(gradients),
        strict=True,
    ):
        scale = np.abs(other).max() + 1e-6
        np.testing.assert_allclose(one / scale, other / scale, atol=2e-4, err_msg=str(path))


@EVERY
def test_a_prompt_in_pieces_and_single_tokens_are_the_whole(pattern):
    """Packed rows, too: pieces end anywhere, chunks and rings go round."""
    graph, state = stack(pattern, causal=True)
    length = 27
    x = inputs(2, length)
    segments = np.ones((2, length), np.int32)
    segments[1] = [1] * 5 + [2] * 6 + [0] + [3] * 13 + [0] * 2

    @jax.jit
    def compute(state):
        module = nnx.merge(graph, state)
        whole, _ = module(x, segment_ids=jnp.asarray(segments))

        def read(pieces):
            cache, parts, start = module.init_cache(2, length + 3), [], 0
            for size in pieces:
                own = slice(start, start + size)
                y, cache = module(x[:, own], segment_ids=jnp.asarray(segments[:, own]), cache=cache)
                parts, start = [*parts, y], start + size
            return jnp.concatenate(parts, axis=1)

        def token(cache, inputs):
            y, cache = module(inputs[0][:, None], segment_ids=inputs[1][:, None], cache=cache)
            return cache, y[:, 0]

        steps = (x.swapaxes(0, 1), jnp.asarray(segments.T))
        _, y = jax.lax.scan(token, module.init_cache(2, length), steps)
        return whole, read((10, 1, 13, 3)), y.swapaxes(0, 1)

    whole, pieces, tokens = compute(state)
    counted = segments != 0
    np.testing.assert_allclose(pieces[counted], whole[counted], atol=TOLERANCE)
    np.testing.assert_allclose(tokens[counted], whole[counted], atol=TOLERANCE)
    assert np.std(whole) > 0.1


@EVERY
@CAUSAL
def test_who_sees_whom_by_gradient(pattern, causal):
    graph, state = stack(pattern, causal)
    x = inputs(1, 12)
    segments = np.array([[1] * 8 + [2] * 4], np.int32)

    @jax.jit
    def sensitivity(state, x):
        """Of the output at token 4 to each input."""

        def output(x):
            y, _ = nnx.merge(graph, state)(x, segment_ids=jnp.asarray(segments))
            return jnp.sum(jnp.sin(y[0, 4]))

        return jnp.abs(jax.grad(output)(x)).max(axis=-1)[0]

    seen = np.asarray(sensitivity(state, x))
    assert np.all(seen[8:] == 0)
    assert np.all(seen[3:5] > 0)
    assert np.all(seen[5:8] == 0) if causal else seen[5] > 0


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if "*" in p])
def test_scanned_is_looped(pattern):
    x = inputs(2, 11)
    run, state = runner(pattern, True, scan_layers=True)
    looped, same_state = runner(pattern, True, scan_layers=False)
    np.testing.assert_allclose(looped(same_state, x), run(state, x), atol=TOLERANCE)


def test_eight_devices_give_what_one_does(on_eight_devices):
    """Rows, sequences, and features cut up: each mixer alone, and SPADE, both ways."""
    seen = on_eight_devices(Path(__file__).with_name("eight_devices_mix.py"))
    assert len(seen) == 7
    for report in seen:
        assert report["error"] < 1e-5, report
        assert report["gradient_error"] < 1e-4, report


@EVERY
def test_operations_are_counted(pattern):
    """Each mixer, its combination and its feed-forward; twice the layers are twice as many."""
    config = model(pattern)
    once = stack_flops(config, config.encoder, 64, causal=True)
    assert once > 0
    twice = StackConfig(f"2*({pattern})")
    assert stack_flops(config, twice, 64, causal=True) == 2 * once
    assert stack_flops(config, config.encoder, 64, causal=False) >= once


def test_a_mixer_of_ones_own_trains_in_encoder_and_decoder():
    """And its parameters say of themselves what the optimiser must know."""
    config = model("moving_average+window", decoder=StackConfig("moving_average, full"))
    mesh = make_mesh(MeshConfig())
    kinds = abstract_model(builder(config), mesh).kinds
    decay = "encoder/layers_0/global_mixer/logit", "decoder/layers_0/local_mixer/logit"
    for name in decay:
        assert kinds[name] == ParameterKind(decays=False, group="ssm")
        assert kinds[name.replace("logit", "gate/kernel")] == ParameterKind()
    trainer = make_trainer(
        builder(config),
        Seq2Seq(),
        OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=1),
        TrainConfig(steps=9, batch_size=4),
        mesh,
    )
    tokens = np.random.default_rng(0).integers(1, 24, (4, 21), dtype=np.int32)
    batch = Seq2SeqBatch.unpacked(tokens[:, :13], tokens[:, 13:]).named()
    state, losses = trainer.init(), []
    before = jax.tree.map(np.asarray, state.params)
    for _ in range(4):
        state, metrics = trainer.train_step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.05
    for name in decay:
        assert not np.array_equal(paths(state.params)[name], paths(before)[name])
