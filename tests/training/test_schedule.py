import math
from pathlib import Path

import jax
import numpy as np
import pytest

from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError
from spade_jax.config.file import read_config
from spade_jax.training.config import OptimizerConfig
from spade_jax.training.schedule import schedule_shape

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 0.775, 0.55, 0.325, 0.1]),
        (
            "cosine",
            [0.25, 0.5, 0.75, 1, *(0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)))],
        ),
        ("inverse_sqrt", [0.25, 0.5, 0.75, 1, *np.sqrt(4 / np.arange(5, 9))]),
        # T5 counts the updates before: 1 / sqrt(max(updates done, warmup_steps)) over its peak.
        ("rsqrt_decay", [1, 1, 1, 1, 1, *np.sqrt(4 / np.arange(5, 8))]),
    ],
)
def test_schedule_by_update(schedule, expected):
    config = OptimizerConfig(schedule=schedule, warmup_steps=4, final_fraction=0.1)
    shape = schedule_shape(config, steps=8)
    np.testing.assert_allclose([shape(u) for u in range(8)], expected, rtol=1e-6)


@pytest.mark.parametrize("growth", [1, 2])
def test_cosines_begin_again(growth):
    config = OptimizerConfig(
        schedule="cosine_restarts",
        warmup_steps=3,
        initial_fraction=0.01,
        final_fraction=0.1,
        period=4,
        period_growth=growth,
        period_shrink=0.75,
    )
    shape = jax.jit(schedule_shape(config, steps=40))
    expected = [0.01 + 0.99 * u / 3 for u in (1, 2)]
    for number in range(4):
        length = 4 * growth**number
        wave = [0.1 + 0.45 * (1 + math.cos(math.pi * u / length)) for u in range(length)]
        expected += [0.75**number * height for height in wave]
    expected = expected[:40]
    np.testing.assert_allclose([shape(u) for u in range(len(expected))], expected, rtol=1e-5)


def test_a_warmup_may_be_quadratic():
    config = OptimizerConfig(
        schedule="linear",
        warmup_steps=4,
        warmup_power=2,
        initial_fraction=0.2,
        final_fraction=0,
    )
    shape = schedule_shape(config, steps=6)
    expected = [*(0.2 + 0.8 * np.square(np.arange(1, 5) / 4)), 0.5, 0]
    np.testing.assert_allclose([shape(u) for u in range(6)], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "period"), [("cosine_restarts", None), ("cosine", 5), ("linear", 5)]
)
def test_periods_are_of_restarts(schedule, period):
    with pytest.raises(ConfigError, match=rf"optimizer.period = {period}: must be set for sched"):
        OptimizerConfig(schedule=schedule, period=period)


@pytest.mark.parametrize("size", ["base", "large"])
def test_t5_s_rates(size):
    config = read_config(str(CONFIGS / f"{size}.py"), {}, PretrainConfig, "pretrain")
    shape = schedule_shape(config.optimizer, config.train.steps)
    rates = [config.optimizer.learning_rate * shape(u - 1) for u in (1, 10_000, 100_000)]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.1**2.5], rtol=1e-5)


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warmup_begins_at_the_peak_and_ends_at_the_final_fraction(warmup):
    config = OptimizerConfig(schedule="linear", warmup_steps=warmup, final_fraction=0.0)
    shape = schedule_shape(config, steps=5)
    np.testing.assert_allclose([shape(u) for u in range(5)], [1, 0.75, 0.5, 0.25, 0], atol=1e-7)


def test_warmup_longer_than_the_run_is_rejected():
    with pytest.raises(ConfigError, match=r"optimizer.warmup_steps = 8: must be below .* 8"):
        schedule_shape(OptimizerConfig(schedule="cosine", warmup_steps=8), steps=8)


@pytest.mark.parametrize(
    ("schedule", "share", "steps", "warmup"),
    [("cosine", 0.01, 1000, 10), ("linear", 0.25, 10, 2), ("rsqrt_decay", 0.001, 100, 1)],
)
def test_a_warm_up_that_is_a_share_of_the_run(schedule, share, steps, warmup):
    of_share = OptimizerConfig(schedule=schedule, warmup_share=share)
    of_steps = OptimizerConfig(schedule=schedule, warmup_steps=warmup)
    counts = np.arange(steps)
    np.testing.assert_array_equal(
        jax.vmap(schedule_shape(of_share, steps))(counts),
        jax.vmap(schedule_shape(of_steps, steps))(counts),
    )


def test_a_warm_up_beyond_the_run_says_what_would_be_right():
    with pytest.raises(ConfigError, match=r"warmup_steps = 60: .* = 60; .*warmup_share=0.1$"):
        schedule_shape(OptimizerConfig(schedule="cosine", warmup_steps=60), 60)
