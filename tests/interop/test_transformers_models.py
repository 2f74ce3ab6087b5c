"""A folder for Transformers computes what the model does."""

import os
import subprocess

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import check_folder
import numpy as np
import torch_cases

# A Python that has another version of Transformers, the oldest that is supported.
OTHER = os.environ.get("SPADE_OTHER_TRANSFORMERS")


def write(folder, name):
    """A case's folder, and what it computes."""
    case = torch_cases.case(name)
    case.write(folder, max_shard_bytes=20_000)
    case.save(
        folder / "expected.npz",
        no_end=np.asarray(torch_cases.NO_END),
        greedy=case.written(),
        beams=case.written(torch_cases.NO_END, beams=3, length_penalty=0.0),
        **case.forward(),
    )
    return folder / "expected.npz"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "mixed")) for n in torch_cases.CASES]
)
def test_pytorch_computes_the_same(tmp_path, name):
    """Logits, loss, gradients, greedy and beam outputs, with and without a cache."""
    check_folder.check(tmp_path, write(tmp_path, name))


@pytest.mark.slow
@pytest.mark.skipif(OTHER is None, reason="SPADE_OTHER_TRANSFORMERS names no Python")
@pytest.mark.parametrize("name", torch_cases.CASES)
def test_another_version_computes_the_same(tmp_path, name):
    arguments = [OTHER, check_folder.__file__, tmp_path, write(tmp_path, name)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
