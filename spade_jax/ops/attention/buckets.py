"""T5's buckets of relative positions."""

import numpy as np


def relative_position_buckets(
    relative_position: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each relative position, as in T5 (arXiv 1910.10683, section 2.1).

    Each small distance has a bucket of its own, greater ones share buckets that widen
    logarithmically up to `max_distance`, and all beyond fall into the last. Computed on the host:
    the positions within a window are known before anything is compiled.

    Args:
      relative_position: integers of any shape, key position - query position.
      bidirectional: give half of the buckets to keys behind the query. Otherwise these share
        bucket 0 with the query's own position.
      num_buckets: how many buckets there are.
      max_distance: the distance at which the last bucket begins, at the latest.

    Returns:
      int32 of the same shape, from 0 to `num_buckets` - 1.
    """
    relative_position = np.asarray(relative_position)
    first = np.zeros(relative_position.shape, np.int32)
    if bidirectional:
        num_buckets //= 2
        first[relative_position > 0] = num_buckets
        distance = np.abs(relative_position)
    else:
        distance = np.maximum(-relative_position, 0)
    exact = num_buckets // 2
    # float32, because rounding decides the bucket of distances that sit on a border.
    octaves = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    scale = np.float32(np.log(max_distance / exact))
    logarithmic = exact + (octaves / scale * np.float32(num_buckets - exact)).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(logarithmic, num_buckets - 1))
    return first + bucket.astype(np.int32)
