"""The format "transformers": see `spade_jax.interop.transformers_folder`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spade_jax.interop import transformers_folder
from spade_jax.interop.export.job import Job, Samples, compare
from spade_jax.runs.workdir import read_evaluations


def check(job: Job) -> None:
    """Raises ConfigError where the model has what the folder's code does not."""
    transformers_folder.check(job.config)


def write(folder: Path, job: Job, say: Callable[[str], None]) -> None:
    """A folder for `AutoModelForSeq2SeqLM` and `AutoTokenizer`."""
    options = job.options
    transformers_folder.write(
        folder,
        job.config,
        job.source,
        job.vocabulary,
        card=card(job),
        dtype=options.dtype,
        max_shard_bytes=options.shard_megabytes * 10**6,
        max_length=options.max_length,
        input_length=job.run.input_length,
    )


def card(job: Job) -> dict[str, Any]:
    """What the model's card says: nothing but what the run has recorded."""
    run = job.run
    settings = run.settings
    task = settings.get("task")
    evaluations = read_evaluations(run.workdir / "metrics.jsonl", up_to=run.step)
    numbers = {
        name: value
        for name, value in evaluations.get(run.step, {}).items()
        if isinstance(value, float) and name not in ("time", "seconds")
    }
    return {
        "name": job.options.output.name,
        "license": job.options.license,
        "data": _data(settings),
        "step": run.step,
        "metrics": numbers,
        "task": None if task is None else str(task.get("name") or task.get("train")),
        "settings": settings,
    } | ({} if job.options.no_verify is False else {"note": "Not compared with the run."})


def _data(settings: Mapping[str, Any]) -> list[str]:
    """What the run was trained on, as its settings name it."""
    task = settings.get("task")
    if task is not None:
        return [str(task.get("train") or task.get("name"))]
    sources = settings.get("data", {}).get("sources", ())
    named = ("train", "name", "kind")
    return [str(next(filter(None, map(source.get, named)), None)) for source in sources]


def verify(job: Job, samples: Samples, folder: Path, given: Path) -> str:
    """What to say of what PyTorch computes; see `compare`."""
    found = transformers_folder.computed(folder, given, job.vocabulary, samples.lines)
    return compare(job, samples, *found)
