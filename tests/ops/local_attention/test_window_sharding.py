from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def report(on_eight_devices):
    return on_eight_devices(Path(__file__).with_name("eight_device_attention.py"))


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


def test_shards_of_a_sequence_fetch_a_block_from_their_neighbours_and_no_more(report):
    for seen in report["shards"]:
        _, output, *gradients, bias_gradient = seen["errors"]
        assert output < 1e-6
        assert max(gradients) < 1e-5
        assert bias_gradient < 1e-3  # A sum over 8,224 queries.
        assert seen["gathers"] == 0
        assert seen["tokens_moved"] == 16


def test_shards_that_are_shorter_than_the_window(report):
    assert report["too short"] == (
        "mesh.sequence = 8: must cut the 120 tokens of a sequence into equal shards of at least "
        "16, the window's radius 15 and one"
    )
