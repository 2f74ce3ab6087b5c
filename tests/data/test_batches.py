"""What all batches have in common."""

import pytest

from spade_jax.data.pipeline import train_batches, validation_batches


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"batch_size": 2, "num_shards": 0}, "num_shards = 0"),
        ({"batch_size": 2, "shard_index": 2, "num_shards": 2}, "shard_index = 2: .* below .* 2"),
    ],
)
@pytest.mark.parametrize("make", [train_batches, validation_batches])
def test_impossible_arguments(config, make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(config, **arguments)
