import sys

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers import Competitor


def test_they_take_turns_and_the_second_run_counts(monkeypatch):
    ran = []
    monkeypatch.setattr(peers.time, "perf_counter", lambda: ran.append("clock") or len(ran))
    competitors = [
        Competitor(name, lambda name=name: ran.append(name) or 1.5, 10) for name in ("a", "b")
    ]
    missing = {}
    seconds, losses = peers.run_in_turns(competitors, 2, missing)
    a_turn = ["a", "clock", "a", "clock"], ["b", "clock", "b", "clock"]
    assert ran == 2 * [*a_turn[0], *a_turn[1]]
    assert seconds == {"a": [2, 2], "b": [2, 2]}
    assert losses == {"a": 1.5, "b": 1.5}
    assert missing == {}


def test_what_cannot_be_had_is_said_and_left_out(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def absent():
        raise ImportError("No module named 'torch'")

    def too_large():
        raise MemoryError("of 80 GiB")

    makers = {
        "one": lambda: Competitor("one", lambda: 10.4, 2_500_000),
        "absent": absent,
        "large": lambda: Competitor("large", too_large, 1),
    }
    peers.compare(makers, "loss and gradient", (1, 4096, 128), 1)
    printed = capsys.readouterr().out
    assert "loss and gradient of 1 x (4,096 + 128)" in printed
    [row] = [line for line in printed.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")[1:3]] == ["one", "2.5M"]
    assert [row.split("│")[4].strip(), row.split("│")[6].strip()] == ["1.00", "10.40"]
    assert "left out: absent (ImportError: No module named 'torch')" in printed
    assert "left out: large (MemoryError: of 80 GiB)" in printed


def test_the_same_tokens_for_all():
    inputs, targets = peers.tokens((2, 30, 9))
    assert (inputs.shape, targets.shape) == ((2, 30), (2, 9))
    again = peers.tokens((2, 30, 9))
    np.testing.assert_array_equal(inputs, again[0])
    read = peers.shifted(targets)
    np.testing.assert_array_equal(read[:, 1:], targets[:, :-1])
    assert (read[:, 0] == 0).all()
    # LongT5 shifts by itself, from its token 0, and looks for padding, 0, and 1, the end.
    assert min(inputs.min(), targets.min()) > 1


def test_names_that_jax_had_are_understood_for_a_while():
    import jax.numpy as jnp

    before = jnp.clip
    with peers._old_names():
        np.testing.assert_array_equal(jnp.clip(jnp.arange(4), a_min=1, a_max=2), [1, 1, 2, 2])
        np.testing.assert_array_equal(jnp.clip(jnp.arange(4), 1, max=2), [1, 1, 2, 2])
        np.testing.assert_array_equal(jnp.clip(jnp.arange(4), a_max=0), [0, 0, 0, 0])
    assert jnp.clip is before


def test_a_gpu_that_is_not_here(capsys, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    assert peers.main(["--device=gpu"]) == 2
    assert capsys.readouterr().err == "--device = 'gpu': JAX finds a cpu only\n"


@pytest.mark.slow
def test_without_peers_spade_is_measured_alone(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    sizes = ["--inputs=64", "--targets=8", "--layers=1", "--repeats=1"]
    assert peers.main(sizes) == 0
    printed = capsys.readouterr().out
    assert "SPADE, s4+window:concat │" in printed
    assert "SPADE, 1*window" in printed
    assert "left out: LongT5, Flax (" in printed
    assert "left out: LongT5, PyTorch (" in printed
