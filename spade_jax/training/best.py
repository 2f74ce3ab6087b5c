"""Which step of a run is the best one, and whether better ones still come."""

from collections.abc import Mapping

from spade_jax.training.config import TrainConfig

# Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = ("loss", "bits_per_byte")


def best_step(evaluations: Mapping[int, Mapping[str, float]], config: TrainConfig) -> int | None:
    """The first of the steps with the best value of `config.best_metric`; None without one."""
    if config.best_metric is None or not evaluations:
        return None
    metric = config.best_metric
    sign = -1 if metric.rpartition("/")[-1] in LOWER_IS_BETTER else 1
    return min(evaluations, key=lambda step: (-sign * evaluations[step][metric], step))


def stale(evaluations: Mapping[int, Mapping[str, float]], config: TrainConfig) -> bool:
    """Whether the last `config.patience` evaluations all were no better than one before them."""
    best = best_step(evaluations, config)
    if best is None or config.patience is None:
        return False
    return sum(step > best for step in evaluations) >= config.patience
