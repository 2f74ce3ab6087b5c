"""What ends a run whose numbers are no numbers any more."""

import math
from collections.abc import Mapping

from spade_jax.config import RunError


class TrainingDiverged(RunError):
    """A loss or an update that is not finite: the message says where, and what to try."""


def require_finite(step: int, metrics: Mapping[str, float], saved_step: int) -> None:
    """Raises TrainingDiverged unless the numbers of an update are finite.

    Args:
      saved_step: of the last checkpoint, or 0.
    """
    for name in ("loss", "grad_norm", "update_norm"):
        if not math.isfinite(metrics[name]):
            last = (
                f"the last good checkpoint is step {saved_step}"
                if saved_step
                else "there is no checkpoint yet"
            )
            raise TrainingDiverged(
                f"step {step}: {name} = {metrics[name]}, loss = {metrics['loss']}: training "
                f"stopped; {last}. Try a lower optimizer.learning_rate, a longer "
                "optimizer.warmup_steps, a lower optimizer.clip_norm, or model.dtype 'float32'"
            )
