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
        assert seen["gathered"] == []
        assert seen["tokens_moved"] == 16


def test_shards_of_whole_chunks_need_nothing_of_each_other(report):
    seen = report["chunks"]
    _, output, *gradients, bias_gradient = seen["errors"]
    assert output < 1e-6
    assert max(gradients) < 1e-5
    assert bias_gradient < 1e-4
    assert (seen["gathered"], seen["tokens_moved"]) == ([], 0)


def test_full_attention_to_keys_in_shards(report):
    """Queries are gathered where they are cut, keys never are."""
    seen = report["full on shards"]
    for found in seen.values():
        _, output, *gradients, bias_gradient = found["errors"]
        assert output < 3e-6  # Of numbers up to 5.
        assert max(gradients) < 1e-5
        assert bias_gradient < 1e-4
        assert found["tokens_moved"] == 0
    assert {name: found["gathered"] for name, found in seen.items()} == {
        "itself": [1400],
        "itself on all axes": [120],
        "itself, not cut": [],
        "cross": [120],
        "cross, keys cut": [],
        "cross, queries cut": [],
    }


def test_sequences_too_short_to_be_cut_are_left_whole(report):
    _, output, *gradients, bias_gradient = report["too short"]["errors"]
    assert output < 1e-6
    assert max(gradients) < 1e-5
    assert bias_gradient < 1e-4
    assert report["too short"]["tokens_moved"] == 0
