"""Several examples in one row train as they would each in a row of its own."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from scoring import MODEL

from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.training_batches import train_pairs
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch

LEARNED = {"positions": "learned", "max_positions": 64}
MODELS = {
    "relative": MODEL,
    "learned": dataclasses.replace(
        MODEL,
        encoder=dataclasses.replace(MODEL.encoder, **LEARNED),
        decoder=dataclasses.replace(MODEL.decoder, **LEARNED),
    ),
}


@pytest.mark.parametrize("positions", MODELS)
def test_packed_and_unpacked_examples_give_the_same_loss_and_gradients(tmp_path, positions):
    rows = [{"in": "ab"[i % 2] * (3 + i), "out": f"w{i}"} for i in range(6)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    apart = TaskConfig(
        train=str(path),
        inputs=("in",),
        target="out",
        metrics=("accuracy",),
        input_length=16,
        target_length=6,
        vocabulary="bytes",
        extra_ids=100,
    )
    together = dataclasses.replace(apart, input_length=64, target_length=32, pack=True)
    one = next(train_pairs(apart, 6, [6]))
    other = next(train_pairs(together, 1, [6]))
    # All six, some of a second epoch behind them: those have no weight here.
    segments = other["decoder_segment_ids"]
    assert segments.max() >= 6
    other["decoder_loss_weights"] = other["decoder_loss_weights"] * (segments <= 6)
    graph, state = nnx.split(EncoderDecoder(MODELS[positions], nnx.Rngs(0)))
    objective = Seq2Seq(LossConfig(z_loss=1e-3))

    def loss_and_gradients(batch):
        def loss(state):
            return objective(nnx.merge(graph, state), Seq2SeqBatch.of(batch), None).loss

        return jax.jit(jax.value_and_grad(loss))(state)

    (loss, gradients), (packed_loss, packed_gradients) = map(loss_and_gradients, (one, other))
    assert int(one["decoder_loss_weights"].sum()) == int(other["decoder_loss_weights"].sum())
    np.testing.assert_allclose(packed_loss, loss, rtol=1e-5)
    for (where, a), b in zip(
        jax.tree.leaves_with_path(packed_gradients), jax.tree.leaves(gradients), strict=True
    ):
        scale = np.abs(b).max() + 1e-7
        np.testing.assert_allclose(
            a / scale, b / scale, atol=1e-4, err_msg=jax.tree_util.keystr(where)
        )
