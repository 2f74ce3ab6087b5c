"""What `python -m spade_jax.interop.export` does once its settings are read and its processes
joined."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from spade_jax import hosts
from spade_jax.files import whole_folder
from spade_jax.interop.export.job import Job, Samples, samples
from spade_jax.interop.source import Source
from spade_jax.loading import vocabulary_of
from spade_jax.runs.open import open_run


class Format(Protocol):
    """A module of this folder: one of `__main__.FORMATS`."""

    def check(self, job: Job) -> None:
        """Raises ConfigError where the format cannot express the model, or cannot be so made."""

    def write(self, folder: Path, job: Job, say: Callable[[str], None]) -> None:
        """Fills a folder, saying what is done of what takes long."""

    def verify(self, job: Job, samples: Samples, folder: Path, given: Path) -> str:
        """What to say of a folder that computes the samples, `given` as an .npz file, as the run
        does. Raises RunError where it does not."""


def export(form: Format, options: argparse.Namespace) -> None:
    """Writes the folder, beside its place first, and renames it when it has been compared.

    Of several processes the first one writes: it reads one array at a time, whatever the model's
    size.

    Raises:
      ConfigError: no run, or a model that the format cannot express.
      RunError: no checkpoint that can be read, or a copy that computes something else.
    """
    own = {name: str(value) for name, value in vars(options).items() if name != "process"}
    hosts.check_agreement(own, "command")
    if hosts.is_first():
        _export(form, options)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("exported")


def _export(form: Format, options: argparse.Namespace) -> None:
    run = open_run(options.checkpoint, "--checkpoint", alone=True)
    _say(f"{options.checkpoint}: {run.why}")
    job = Job(run, vocabulary_of(run), Source(run, jnp.dtype(options.dtype)), options)
    form.check(job)
    with whole_folder(options.output) as folder:
        form.write(folder, job, _say)
        if options.no_verify:
            _say("not loaded and compared (--no-verify)")
        else:
            _say(_verified(form, folder, job))
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    _say(f"{options.output}: written, {size / 1e6:,.1f} MB")


def _verified(form: Format, folder: Path, job: Job) -> str:
    """What to say of a copy that computes as the run does."""
    own = samples(job)
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary) / "samples.npz"
        own.save(given)
        words = form.verify(job, own, folder, given)
    return f"loaded again and compared with the run on {len(own.lines)} lines: {words}"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
