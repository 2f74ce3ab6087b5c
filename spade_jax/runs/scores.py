"""Which step of a run is the best one, and whether better ones still come.

Scores are values of `train.best_metric` by step. NaN is never the best, and never better. A metric
that is the same at every evaluation tells nothing: it decides neither which step is used nor when
the run ends.
"""

import math
from collections.abc import Mapping

from spade_jax.training.config import TrainConfig

# Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = ("loss", "bits_per_byte")


def scores_of(
    evaluations: Mapping[int, Mapping[str, float]], config: TrainConfig
) -> dict[int, float]:
    """The scores of those evaluations that have the metric; none where the run names no metric."""
    metric = config.best_metric
    return {} if metric is None else {s: v[metric] for s, v in evaluations.items() if metric in v}


def by_goodness(scores: Mapping[int, float], config: TrainConfig) -> list[int]:
    """The steps whose scores are numbers, best first, and of equal ones the earliest."""
    lower = (config.best_metric or "").rpartition("/")[-1] in LOWER_IS_BETTER
    numbers = {s: v if lower else -v for s, v in scores.items() if not math.isnan(v)}
    return sorted(numbers, key=lambda step: (numbers[step], step))


def best_step(scores: Mapping[int, float], config: TrainConfig) -> int | None:
    """The first of the steps with the best score, which is worth keeping; None without one."""
    return next(iter(by_goodness(scores, config)), None)


def tell_nothing(scores: Mapping[int, float]) -> bool:
    """Whether there are at least two scores, and all are the same."""
    return len(scores) > 1 and len({"nan" if math.isnan(v) else v for v in scores.values()}) == 1


def stale(scores: Mapping[int, float], config: TrainConfig) -> bool:
    """Whether the last `config.patience` evaluations all were no better than one before them."""
    best = best_step(scores, config)
    if best is None or config.patience is None or tell_nothing(scores):
        return False
    return sum(step > best for step in scores) >= config.patience
