import dataclasses
import math

import pytest

from spade_jax.config import ConfigError
from spade_jax.models.presets import preset
from spade_jax.objectives.config import TOKEN_METRICS
from spade_jax.runs.scores import (
    best_step,
    by_goodness,
    scores_of,
    stale,
    tell_nothing,
)
from spade_jax.training.config import TrainConfig

NAN = math.nan
SCORE = TrainConfig(steps=3, batch_size=8, best_metric="score", patience=2)
LOSS = dataclasses.replace(SCORE, best_metric="loss")


def test_less_loss_is_better():
    evaluations = {1: {"loss": 2.0, "accuracy": 0.1}, 2: {"loss": 1.0, "accuracy": 0.2}}
    evaluations[3] = evaluations[2]
    for metric in ("loss", "accuracy"):
        config = TrainConfig(steps=3, batch_size=8, best_metric=metric)
        assert best_step(scores_of(evaluations, config), config) == 2


@pytest.mark.parametrize("config", [SCORE, LOSS])
def test_nan_is_never_the_best(config):
    assert best_step({1: NAN, 2: 0.5}, config) == 2
    assert best_step({1: 0.5, 2: NAN}, config) == 1
    assert by_goodness({1: NAN, 2: 0.5, 3: NAN, 4: math.inf}, config) in ([2, 4], [4, 2])
    assert best_step({1: NAN}, config) is None
    assert best_step({}, config) is None


def test_nan_is_never_better():
    assert not stale({1: NAN, 2: NAN, 3: 0.1}, SCORE)
    assert not stale({1: 0.5, 2: NAN}, SCORE)
    assert stale({1: 0.5, 2: NAN, 3: NAN}, SCORE)
    assert not stale({1: 0.5, 2: NAN, 3: 0.6, 4: NAN}, SCORE)


def test_a_metric_that_is_always_the_same_decides_nothing():
    for value in (0.0, 1.0, NAN, math.inf):
        same = {step: value for step in range(1, 9)}
        assert tell_nothing(same)
        assert not stale(same, SCORE)
        assert not tell_nothing({1: value})
        assert not tell_nothing(same | {9: 0.5})
    assert not tell_nothing({})
    # The first one of equal ones is kept all the same: what follows may be worse.
    assert best_step({1: 0.0, 2: 0.0, 3: -1.0}, SCORE) == 1
    assert stale({1: 0.0, 2: 0.0, 3: -1.0}, SCORE)


def test_without_a_metric_there_is_no_best():
    config = TrainConfig(steps=3, batch_size=8)
    assert scores_of({1: {"loss": 2.0}, 2: {"loss": 1.0}}, config) == {}
    assert best_step({}, config) is None


def test_pre_training_refuses_a_metric_that_it_does_not_measure():
    from pretrain.config import PretrainConfig

    model = preset("tiny", vocab_size=384)
    for metric in TOKEN_METRICS:
        config = TrainConfig(steps=3, batch_size=8, best_metric=metric)
        assert PretrainConfig(model, config).train.best_metric == metric
    with pytest.raises(ConfigError, match=r"train.best_metric = 'los': .*did you mean 'loss'"):
        PretrainConfig(model, dataclasses.replace(config, best_metric="los"))
