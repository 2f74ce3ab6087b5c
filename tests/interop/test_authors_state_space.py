"""C~ and C against their definition."""

import numpy as np
import pytest
from golden_data import Golden, as_complex

from spade_jax.config import RunError
from spade_jax.interop.authors.state_space import Dynamics, with_tail, without_tail
from spade_jax.ops.ssm import hippo


def dynamics(features, copies, n, *, seed=0, dt=(1e-3, 1e-1)):
    random = np.random.default_rng(seed)
    w, p, _, _ = hippo.legs_nplr(n)
    low_rank = np.stack([p.real, p.imag], axis=-1)[None] * random.uniform(
        0.9, 1.1, (copies, n // 2, 1)
    )
    arrays = (
        np.log(-w.real) + random.normal(size=(copies, n // 2), scale=0.1),
        np.tile(w.imag, (copies, 1)),
        low_rank,
        random.uniform(np.log(dt[0]), np.log(dt[1]), features),
    )
    return Dynamics(*(x.astype(np.float32) for x in arrays))


def discrete(own, feature):
    """A' of a feature over the full complex state, by its definition."""
    log_decay, frequency, low_rank, log_dt = (x.astype(np.float64) for x in own)
    copy = feature % len(log_decay)
    w = -np.exp(log_decay[copy]) + 1j * frequency[copy]
    p = as_complex(low_rank[copy])
    p = np.concatenate([p, p.conj()])
    a = np.diag(np.concatenate([w, w.conj()])) - np.outer(p, p.conj())
    step, one = np.exp(log_dt[feature]) / 2, np.eye(len(p))
    return np.linalg.solve(one - step * a, one + step * a)


@pytest.mark.parametrize(("length", "dt"), [(24, (1e-4, 1e-3)), (1024, (1e-3, 1e-1))])
def test_both_ways_against_the_definition(length, dt):
    features, copies, n = 6, 3, 16
    own = dynamics(features, copies, n, dt=dt)
    c = np.random.default_rng(1).normal(size=(2, features, n // 2, 2)).astype(np.float32)
    expected = np.empty(c.shape)
    for f in range(features):
        row = as_complex(c[:, f].astype(np.float64))
        row = np.concatenate([row, row.conj()], axis=1)
        tilde = row @ (np.eye(n) - np.linalg.matrix_power(discrete(own, f), length))
        expected[:, f] = np.stack([tilde.real, tilde.imag], axis=-1)[:, : n // 2]
    found = without_tail(c, own, length)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-7
    again = with_tail(found, own, length)
    assert np.abs(again - c).max() / np.abs(c).max() < 3e-7


@pytest.mark.parametrize(
    "name", ["s4_module_bidir_h12_ssm3", "s4_module_lm_h12_ssm1", "s4_module_lm_h8"]
)
def test_as_the_authors_compute_it(name):
    golden = Golden(name)
    kernel = golden.group("param/s4.kernel.kernel.")
    after = golden.group("after/s4.kernel.kernel.")
    own = Dynamics(kernel["inv_w_real"], kernel["w_imag"], kernel["P"][0], kernel["log_dt"])
    found = without_tail(kernel["C"], own, int(after["L"]))
    assert np.abs(found - after["C"]).max() / np.abs(after["C"]).max() < 5e-5


def test_features_by_blocks_are_the_same(monkeypatch):
    own = dynamics(7, 1, 8)
    c = np.random.default_rng(1).normal(size=(1, 7, 4, 2)).astype(np.float32)
    whole = without_tail(c, own, 9)
    monkeypatch.setattr("spade_jax.interop.authors.state_space._BLOCK_BYTES", 8 * 8 * 8 * 3)
    np.testing.assert_array_equal(without_tail(c, own, 9), whole)


def test_what_is_not_finite_is_an_error():
    own = dynamics(4, 4, 8)
    low_rank = np.array(own.low_rank)
    low_rank[1] = np.nan
    c = np.ones((1, 4, 4, 2), np.float32)
    with pytest.raises(RunError, match=r"^L = 9: the discrete A to this power is not finite, in f"):
        with_tail(c, own._replace(low_rank=low_rank), 9)
