import numpy as np
import pytest
from stand_in import VOCAB, StandIn, batch

from spade_jax.objectives.config import TOKEN_METRICS, LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.evaluation import evaluate
from spade_jax.training.step import make_trainer


@pytest.fixture(scope="module")
def trainer():
    mesh = sharding.make_mesh(MeshConfig())
    config = TrainConfig(steps=10, batch_size=16, microbatches=2)
    smooth = LossConfig(z_loss=1e-2, label_smoothing=0.1)
    objective = Seq2Seq(smooth, token_bytes=np.arange(VOCAB) % 3)
    return make_trainer(StandIn, objective, OptimizerConfig(warmup_steps=1), config, mesh)


def test_every_token_weighs_the_same_and_padding_rows_nothing(trainer):
    params = trainer.init().params
    batches = [batch(0), batch(1)]
    batches[1] = {name: np.where(np.arange(8)[:, None] < 3, v, 0) for name, v in batches[1].items()}
    result = evaluate(trainer, params, batches)

    rows = {k: np.concatenate([batches[0][k], batches[1][k][:3]]) for k in batches[0]}
    targets = rows["decoder_target_tokens"]
    logits = np.float64(
        trainer.model(params)(
            rows["encoder_input_tokens"],
            rows["decoder_input_tokens"],
            encoder_segment_ids=(rows["encoder_input_tokens"] != 0).astype(int),
        )
    )
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0][targets > 0]
    right = (logits.argmax(-1) == targets)[targets > 0]
    assert {*result} == {*TOKEN_METRICS, "tokens"}
    assert result["tokens"] == len(losses)
    np.testing.assert_allclose(result["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(result["accuracy"], right.mean(), rtol=1e-12)
    num_bytes = trainer.objective.token_bytes[targets[targets > 0]].sum()
    np.testing.assert_allclose(
        result["bits_per_byte"], losses.sum() / np.log(2) / num_bytes, rtol=1e-5
    )
