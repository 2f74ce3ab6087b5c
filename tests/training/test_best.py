from spade_jax.training.best import best_step, scores_of
from spade_jax.training.config import TrainConfig


def test_less_loss_is_better():
    evaluations = {1: {"loss": 2.0, "accuracy": 0.1}, 2: {"loss": 1.0, "accuracy": 0.2}}
    evaluations[3] = evaluations[2]
    for metric in ("loss", "accuracy"):
        config = TrainConfig(steps=3, batch_size=8, best_metric=metric)
        assert best_step(scores_of(evaluations, config), config) == 2
