import pytest

from spade_jax.telemetry import goodput
from spade_jax.telemetry.goodput import CAUSES, Goodput, utilisation


def test_shares_of_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])
    spent = Goodput()
    for cause, seconds in (("start", 1.0), ("compile", 3.0), ("data", 0.5), ("data", 0.5)):
        with spent.lost_to(cause):
            now[0] += seconds
    now[0] += 5.0
    assert spent.shares() == {
        "goodput": 0.5,
        "lost/start": 0.1,
        "lost/compile": pytest.approx(0.3),
        "lost/data": 0.1,
        "lost/evaluation": 0.0,
        "lost/checkpoint": 0.0,
        "lost/profile": 0.0,
    }
    assert sum(spent.shares().values()) == pytest.approx(1.0)
    assert len(spent.shares()) == 1 + len(CAUSES)


def test_what_fails_is_lost_too(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])
    spent = Goodput()

    def fail():
        with spent.lost_to("checkpoint"):
            now[0] += 2.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert spent.shares()["lost/checkpoint"] == 1.0


def test_utilisation_is_of_the_peak_of_all_devices():
    assert utilisation(989e12, 2, "NVIDIA H100 80GB HBM3") == 0.5
    assert utilisation(1e12, 1, "cpu") is None
