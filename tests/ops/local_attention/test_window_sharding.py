import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def report():
    """What eight devices in a process of their own found."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    script = Path(__file__).with_name("eight_device_attention.py")
    run = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.parametrize("attention", ["window", "full"])
def test_batch_and_heads_shard_without_communication(report, attention, rate):
    forward, backward = (report[f"{attention} {way} {rate}"] for way in ("forward", "backward"))
    assert forward["collectives"] == []
    # The bias is one for all examples: its gradient is summed over them.
    assert backward["collectives"] == (["all-reduce"] if attention == "window" else [])
    assert forward["error"] < 1e-6
    assert backward["error"] < 1e-4
