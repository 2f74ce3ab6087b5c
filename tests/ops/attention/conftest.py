import pytest
from small_tiles import use_small_tiles

# Of the suites, what kernels, whose interpretation is slow to compile, are asked by
# `make test-slow` alone: another test asks nearly the same.
_SLOW_OF_KERNELS = (
    "test_window_is_dense_attention_under_a_mask[{}-3-4-False]",
    "test_window_is_dense_attention_under_a_mask[{}-23-4-True]",
    "test_window_is_dense_attention_under_a_mask[{}-23-4-False]",
    "test_batch_of_one_without_bias_or_segments[{}-True]",
    "test_padding_changes_nothing[{}-False]",
    "test_packed_segments_are_separate_ones[{}-False]",
    "test_who_sees_whom[{}-True]",
    "test_rows_that_see_nothing_are_zero_and_their_gradients_too[{}-3-float32]",
    "test_rows_that_see_nothing_are_zero_and_their_gradients_too[{}-3-bfloat16]",
    "test_rows_that_see_nothing_are_zero_and_their_gradients_too[{}-3-float16]",
    "test_rows_that_see_nothing_are_zero_and_their_gradients_too[{}-20-bfloat16]",
    "test_dropout_is_the_same_whatever_computes_it[{}-True]",
    "test_full_attention_is_dense_attention_under_a_mask[{}-causal, bias of all]",
    "test_full_attention_is_dense_attention_under_a_mask[{}-bidirectional, bias of more]",
    "test_full_attention_is_dense_attention_under_a_mask[{}-cross, keys hidden]",
    "test_gradients_of_rows_without_keys_are_zero[{}-float32]",
    "test_gradients_of_rows_without_keys_are_zero[{}-bfloat16]",
    "test_bfloat16_is_float32_rounded[{}-cross]",
    "test_dropout_is_the_same_whatever_computes_it[{}-cross]",
)


def pytest_collection_modifyitems(items):
    for item in items:
        of = getattr(item, "callspec", None)
        names = [] if of is None else [*of.params.values()]
        kernels = [name for name in names if isinstance(name, str) and name.startswith("pallas")]
        if any(item.name == slow.format(name) for slow in _SLOW_OF_KERNELS for name in kernels):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    use_small_tiles(monkeypatch.setattr)
