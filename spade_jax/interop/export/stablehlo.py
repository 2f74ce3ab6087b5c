"""The format "stablehlo": programs, their parameters, and a loader that needs JAX alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export

from spade_jax.config import MAX_LENGTH, ConfigError, require
from spade_jax.decoding.beam_search import TopK
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import bucket_length
from spade_jax.interop.export import loader
from spade_jax.interop.export.job import Job, Samples, compare, in_a_fresh_process
from spade_jax.interop.export.programs import FUNCTIONS, Programs, Sizes
from spade_jax.interop.tensor_files import CHECKSUMS, sha256


def check(job: Job) -> None:
    """Raises ConfigError where programs cannot be made."""
    decoding_of(job)
    lengths(job)


def decoding_of(job: Job) -> DecodingConfig:
    """How programs write.

    Raises:
      ConfigError: more tokens than the decoder has positions.
    """
    options, most = job.options, job.config.decoder.max_positions
    require(
        most is None or options.max_length <= most,
        "--max_length",
        options.max_length,
        f"must be at most {most}, the decoder's positions",
    )
    return DecodingConfig(
        max_length=options.max_length,
        beams=options.beams,
        length_penalty=options.length_penalty,
    )


def lengths(job: Job) -> list[int]:
    """Of inputs, ascending: those that the command names, or those that decoding fills up to.

    Raises:
      ConfigError: one is beyond the encoder's positions.
    """
    longest = job.run.input_length
    found = sorted(set(job.options.lengths or ()))
    if not found:
        found = [bucket_length(1, longest)]
        while found[-1] < longest:
            found.append(bucket_length(found[-1] + 1, longest))
    positions = job.config.encoder.max_positions or MAX_LENGTH
    if found[-1] > positions:
        raise ConfigError(
            f"--lengths = {found[-1]}: must be at most {positions}, the encoder's positions"
        )
    return found


def programs_of(job: Job, length: int, top_k: TopK = jax.lax.top_k) -> Programs:
    """The functions for inputs of a length; top_k is beam search's."""
    sizes = Sizes(length, decoding_of(job), job.vocabulary.eos_id, job.vocabulary.size)
    return Programs(job.config, sizes, job.source.shapes, top_k)


def write(folder: Path, job: Job, say: Callable[[str], None]) -> None:
    """Programs `encode_128.stablehlo` and so on, parameters, `manifest.json` and `loader.py`."""
    job.write_parameters(folder)
    sums = json.loads((folder / CHECKSUMS).read_text())
    for length in lengths(job):
        programs = programs_of(job, length)
        for name in FUNCTIONS:
            path = folder / f"{name}_{length}.stablehlo"
            path.write_bytes(programs.export(name, job.options.platforms).serialize())
            sums[path.name] = sha256(path)
        say(f"programs for inputs of {length} tokens")
    manifest = {
        "functions": list(FUNCTIONS),
        "lengths": lengths(job),
        "max_length": job.options.max_length,
        "beams": job.options.beams,
        "length_penalty": job.options.length_penalty,
        "end_id": job.vocabulary.eos_id,
        "vocabulary_size": job.vocabulary.size,
        "vocabulary": job.run.vocabulary,
        "extra_ids": job.run.extra_ids,
        "platforms": job.options.platforms,
        "jax": jax.__version__,
        "calling_convention": jax.export.maximum_supported_calling_convention_version,
        "step": job.run.step,
        "sha256": sums,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.copyfile(loader.__file__, folder / "loader.py")


_SCRIPT = """\
import sys
import numpy
sys.path.insert(0, sys.argv[1])
import loader
with numpy.load(sys.argv[2]) as given:
    tokens, decoder_tokens = given['tokens'], given['decoder_tokens']
model = loader.Exported()
inputs = [row[row != 0] for row in tokens]
length, cache = model.start(inputs)
logits = []
for column in decoder_tokens.T[: model.manifest['max_length']]:
    new, cache = model.step(length, cache, column)
    logits.append(numpy.asarray(new))
beams = model.beam(inputs)
assert beams.shape == (len(inputs), model.manifest['max_length'])
model.encode(inputs)
results = {'logits': numpy.stack(logits, 1), 'outputs': numpy.asarray(model.greedy(inputs))}
"""


def verify(job: Job, samples: Samples, folder: Path, given: Path) -> str:
    """What to say of the programs, run in a process without this library; see `compare`."""
    results = in_a_fresh_process(_SCRIPT, [str(folder), str(given)], of_ours=False)
    return compare(job, samples, results["logits"], results["outputs"])
