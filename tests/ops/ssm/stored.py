"""S4 parameters under the names of the authors' checkpoints, as our state spaces."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from golden_data import as_complex

from spade_jax.ops.ssm.discrete import StateSpace, readout


def dplr(params: Mapping[str, jax.Array]) -> tuple[StateSpace, jax.Array]:
    """The state space and its readouts from C, log_dt, B, P, inv_w_real and w_imag."""
    w = -jnp.exp(params["inv_w_real"]) + 1j * params["w_imag"]
    # Axis 0 of P is the rank; that of B and the copies of P are the same for all channels.
    p, b = as_complex(params["P"])[0], as_complex(params["B"])[0]
    return StateSpace(w, p, b, jnp.exp(params["log_dt"])), readout(as_complex(params["C"]))


def diagonal(params: Mapping[str, jax.Array]) -> tuple[StateSpace, jax.Array]:
    """The same of S4D, from C, log_dt, B, inv_A_real and A_imag."""
    w = -jnp.exp(params["inv_A_real"]) + 1j * params["A_imag"]
    system = StateSpace(w, None, as_complex(params["B"]), jnp.exp(params["log_dt"]))
    return system, readout(as_complex(params["C"]))
