"""How all tests run. Being here, this file also lets every folder import `golden_data`."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spade_jax.aot.topology import forced_cpu

# Most programs here run once and on little: not optimised, and not split among threads, they
# compile in a quarter of the time. `XLA_FLAGS= make test` optimises them. Processes that tests
# start inherit these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1",
)


def pytest_collection_finish():
    """What is imported by now stays: it need not be searched for garbage, nor so often."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True, scope="session")
def compile_once(tmp_path_factory):
    """Equal programs of different tests, and of processes that they start, are compiled once."""
    import jax

    folder = str(tmp_path_factory.mktemp("compiled"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def on_eight_devices():
    """Runs a script in a process with eight CPU devices; gives what it printed, read as JSON."""

    def run(script: Path, *arguments: str):
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, "-W", "error", script, *arguments],
            env=os.environ
            | forced_cpu(8, os.environ["XLA_FLAGS"])
            | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def pretraining():
    """The command line of a pre-training run of two steps, without its workdir."""
    return [
        f"--config={Path(__file__).parent / 'pretrain' / 'miniature.py'}",
        "--config.train.steps=2",
        "--config.train.eval_batches=1",
        "--config.optimizer.warmup_steps=0",
        # So that it can go on.
        "--config.optimizer.schedule=constant",
        "--config.samples=0",
    ]


@pytest.fixture(scope="session")
def pretrained(pretraining, tmp_path_factory):
    """The workdir of that run."""
    from pretrain.__main__ import main

    workdir = tmp_path_factory.mktemp("pretrained")
    assert main([*pretraining, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def start_processes():
    """Starts runs of two processes in the background, of which none outlives the test."""
    from several_processes import Running

    runs = []

    def begin(program, workdir, *options):
        runs.append(Running(program, workdir, *options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.communicate()
