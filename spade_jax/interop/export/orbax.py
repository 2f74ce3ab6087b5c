"""The format "orbax": a run's folder with the parameters alone, in another dtype if wanted.

`init_from` and `spade_jax.load` take it, and spread it over whatever devices they have: Orbax reads
of each array what a device needs. All parameters are in one host's memory while it is written.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from spade_jax.interop.export.job import Job, Samples, compare, compute, recomputed_by
from spade_jax.interop.names import by_group
from spade_jax.interop.run_folder import fill_run
from spade_jax.interop.source import Source
from spade_jax.runs.open import open_run


def check(job: Job) -> None:
    """Everything can be written so."""


def write(folder: Path, job: Job, say: Callable[[str], None]) -> None:
    """See the module."""
    fill_run(
        folder,
        job.model,
        by_group(job.source, job.model),
        vocabulary=job.run.vocabulary,
        extra_ids=job.run.extra_ids,
        input_length=job.run.input_length,
        origin={"run": str(job.run.workdir), "step": job.run.step},
    )


def recomputed(folder: str, given: str) -> dict[str, np.ndarray]:
    """Logits and outputs of samples by the run that a folder holds."""
    run = open_run(Path(folder), "folder")
    with np.load(given) as arrays:
        return compute(run.model, Source(run), arrays)


def verify(job: Job, samples: Samples, folder: Path, given: Path) -> str:
    """What to say of the folder, read by another process; see `compare`."""
    results = recomputed_by(__name__, folder, given)
    return compare(job, samples, results["logits"], results["outputs"])
