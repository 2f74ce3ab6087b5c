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


def test_batch_and_heads_shard_without_communication(report):
    # The bias is one for all examples: its gradient is summed over them, and that is all.
    assert report["window"]["collectives"] == ["all-reduce"]
    assert report["full"]["collectives"] == []


@pytest.mark.parametrize("attention", ["window", "full"])
def test_eight_devices_compute_what_one_does(report, attention):
    """Dropout included."""
    output, *gradients, bias_gradient = report[attention]["errors"]
    assert output < 1e-6
    assert max(gradients) < 1e-5
    assert bias_gradient < 1e-4
