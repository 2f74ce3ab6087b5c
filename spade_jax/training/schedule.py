"""Learning rates over the steps of a run."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from spade_jax.config import require
from spade_jax.training.config import OptimizerConfig


def schedule_shape(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a fraction of its peak, by updates done before this one.

    Raises:
      ConfigError: a warm-up that is longer than a run whose schedule falls until its last step.
    """
    warmup = config.warmup_steps
    if config.warmup_share is not None:
        warmup = round(config.warmup_share * steps)
        if config.schedule in ("inverse_sqrt", "rsqrt_decay"):
            warmup = max(warmup, 1)
    falls = config.schedule in ("linear", "cosine")
    require(
        not falls or warmup < steps,
        "optimizer.warmup_steps",
        warmup,
        f"must be below train.steps = {steps}; for a tenth of the run: "
        "--config.optimizer.warmup_share=0.1",
    )
    if config.schedule == "rsqrt_decay":
        return lambda count: jnp.sqrt(warmup / jnp.maximum(count, warmup))
    # Update number u, counted from 1, is update u of the warm-up; the last one reaches the end.
    rest = max(1, steps - max(warmup, 1))
    after: optax.Schedule
    if config.schedule == "linear":
        after = optax.linear_schedule(1.0, config.final_fraction, rest)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, rest, config.final_fraction)
    elif config.schedule == "cosine_restarts":
        after = _cosine_restarts(config, steps)
    elif config.schedule == "inverse_sqrt":
        after = lambda count: jnp.sqrt(warmup / (warmup + count))  # noqa: E731
    else:
        after = optax.constant_schedule(1.0)
    if warmup < 2:
        return after
    linear = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
    first, power = config.initial_fraction, config.warmup_power
    return optax.join_schedules(
        [lambda count: first + (1 - first) * linear(count) ** power, after], [warmup - 1]
    )


def _cosine_restarts(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Cosines of a run of `steps` updates, one after the other (arXiv 1608.03983)."""
    assert config.period is not None
    length, growth = config.period, config.period_growth
    starts, lengths = [0], [length]
    while growth > 1 and starts[-1] + lengths[-1] < steps:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * growth)

    def shape(count: Any) -> jax.Array:
        if growth == 1:
            number, done = count // length, (count % length) / length
        else:
            number = jnp.searchsorted(jnp.array(starts), count, side="right") - 1
            done = (count - jnp.array(starts)[number]) / jnp.array(lengths, jnp.float32)[number]
        fall = config.final_fraction
        wave = fall + (1 - fall) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return config.period_shrink**number * wave

    return shape
