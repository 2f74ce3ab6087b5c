"""`--help` of every program answers at once, and says what there is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW_TO_IMPORT = {"jax", "tensorflow", "seqio", "grain", "sklearn", "libtpu"}
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
        ("spade_jax.data.train_vocabulary", ["--input"]),
        ("benchmarks.decode", ["--lengths"]),
        ("benchmarks.local_attention", ["--lengths"]),
        ("benchmarks.ssm", ["--lengths"]),
        ("benchmarks.train_step", ["--config"]),
        ("benchmarks.pods", ["--output FILE"]),
    ],
)
def test_help_needs_neither_jax_nor_tensorflow(program, words):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, program, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout
