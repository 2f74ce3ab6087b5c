import jax
import pytest

from spade_jax.ops import dispatch
from spade_jax.ops.dispatch import Operation, Unsupported


@pytest.fixture
def operation():
    made = Operation("doubling")
    made.register("xla", lambda x, *, sign: 2 * x * sign, platforms=("cpu", "gpu", "tpu"))
    made.register(
        "positive",
        lambda x, *, sign: 2 * x,
        platforms=(jax.default_backend(),),
        refuses=lambda x, *, sign: None if sign > 0 else "does positive numbers only",
    )
    made.register("elsewhere", lambda x, *, sign: 0 * x, platforms=("vpu",))
    return made


def test_unset_is_the_platform_s_best_that_takes_the_arguments(operation):
    best = operation.implementations["positive"].function
    assert operation.choose(None, 3, sign=1) is best
    assert operation.choose(None, 3, sign=-1)(3, sign=-1) == -6


def test_what_is_better_done_by_another_runs_by_its_name_alone(operation):
    operation.register(
        "large",
        lambda x, *, sign: 2 * x,
        platforms=(jax.default_backend(),),
        best_for=lambda x, *, sign: x > 100,
    )
    large, positive = (operation.implementations[name].function for name in ("large", "positive"))
    assert operation.choose(None, 101, sign=1) is large
    assert operation.choose(None, 3, sign=1) is positive
    assert operation.choose("large", 3, sign=1) is large


def test_a_name_never_falls_back(operation):
    assert operation.choose("xla", 3, sign=1)(3, sign=1) == 6
    assert operation.choose("elsewhere", 3, sign=1)(3, sign=1) == 0
    refused = r"doubling: implementation 'positive' does positive numbers only; xla, elsewhere can"
    with pytest.raises(Unsupported, match=refused):
        operation.choose("positive", 3, sign=-1)
    with pytest.raises(Unsupported, match=r"'pallas'; must be one of xla, positive, elsewhere"):
        operation.choose("pallas", 3, sign=1)


def test_kernels_of_another_platform_are_refused_unless_interpreted():
    elsewhere = "tpu" if jax.default_backend() != "tpu" else "gpu"
    assert dispatch.runs_elsewhere(jax.default_backend()) is None
    assert dispatch.runs_elsewhere(elsewhere).startswith(f"runs on a {elsewhere}, and this is for")
    with dispatch.interpreted():
        assert dispatch.interprets()
        assert dispatch.runs_elsewhere(elsewhere) is None
    assert not dispatch.interprets()
