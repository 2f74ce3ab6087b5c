"""`--help` of every program, and wrong settings, are answered at once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW_TO_IMPORT = {"jax", "tensorflow", "seqio", "grain", "sklearn", "libtpu", "torch"}
SCRIPT = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    found = {SLOW_TO_IMPORT} & set(sys.modules)
    assert not found, found
"""


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("pretrain", ["--config FILE", "--workdir DIR", "--config.train.steps=", "span"]),
        ("finetune", ["--config FILE", "init_from", "eval_only"]),
        ("pretrain.compile", ["--topology KIND:SHAPE"]),
        ("pretrain.launch.local", ["--processes N"]),
        ("pretrain.launch.cloud_tpu", ["--zone"]),
        ("pretrain.launch.xpk", ["--cluster"]),
        ("pretrain.launch.slurm", ["--nodes"]),
        ("spade_jax.decoding", ["--checkpoint DIR", "--coordinator HOST:PORT"]),
        (
            "spade_jax.data.cache",
            ["--config FILE", "--output DIR", "--shards N", "--workers N", "--beam OPTIONS"],
        ),
        ("spade_jax.data.preview", ["--config FILE", "--limit N", "--picture FILE"]),
        ("spade_jax.data.train_vocabulary", ["--input"]),
        ("spade_jax.data.lra.listops", ["--output DIR", "--train N", "--depth N", "--seed N"]),
        ("spade_jax.data.lra.pathfinder", ["--output DIR", "--size N", "--count N", "--seed N"]),
        ("spade_jax.report", ["RUN", "report.html"]),
        ("spade_jax.interop.from_hf", ["--checkpoint DIR", "--radius", "--no_state_space"]),
        ("spade_jax.interop.from_authors", ["--checkpoint DIR", "--vocabulary FILE"]),
        ("spade_jax.interop.to_authors", ["--checkpoint DIR", "--origin DIR", "--raw_c"]),
        ("spade_jax.interop.from_safetensors", ["--checkpoint DIR", "--output DIR"]),
        ("spade_jax.interop.export", ["--checkpoint DIR", "transformers", "--shard_megabytes N"]),
        ("benchmarks.accelerator", ["--budget SECONDS", "--json FILE", "--small"]),
        ("benchmarks.adaptive_softmax", ["--cutoffs"]),
        ("benchmarks.decode", ["--lengths"]),
        ("benchmarks.local_attention", ["--lengths"]),
        ("benchmarks.ssm", ["--lengths"]),
        ("benchmarks.peers", ["--device", "--inputs"]),
        ("benchmarks.train_step", ["--config"]),
        ("benchmarks.pods", ["--output FILE"]),
    ],
)
def test_help_needs_neither_jax_nor_tensorflow(program, words):
    done = run(program, "--help")
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        ("pretrain", ["--config=configs/pretrain/quickstart.py", "--config.samples=9"], "samples"),
        (
            "finetune",
            ["--config=configs/finetune/mnli.py", "--config.init_from=x", "--config.task.name=ax"],
            "task.name = 'ax': has no training examples",
        ),
        ("spade_jax.decoding", ["--checkpoint=x", "--input=-", "--beams=0"], "--beams = 0: must"),
    ],
)
def test_wrong_settings_need_neither(program, options, message):
    workdir = [] if program == "spade_jax.decoding" else ["--workdir=nowhere"]
    done = run(program, *options, *workdir)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {message}")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True
    )
