"""Initial state matrices: HiPPO-LegS, its normal-plus-low-rank form, and S4D's diagonals.

All are computed on the host in float64. A system of state size n is stored as the n / 2 of its
eigenvalues with negative imaginary part; the others are their conjugates.
"""

import numpy as np

from spade_jax.ops.checks import check_choice


def legs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-LegS (Gu et al., arXiv 2008.07669, theorem 2): A [n, n] and B [n], float64.

    A_ij = -sqrt((2i + 1) (2j + 1)) below the diagonal, -(i + 1) on it, and 0 above;
    B_i = sqrt(2i + 1).
    """
    root = np.sqrt(2 * np.arange(n) + 1.0)
    a = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(n) + 1.0)
    return a, root


def legs_nplr(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """LegS as normal plus low rank (S4, arXiv 2111.00396, theorem 1): A = V diag(w) V^* - p p^T.

    Args:
      n: state size, even.

    Returns:
      w [n/2], P [n/2] and B [n/2], complex128, in the eigenbasis V [n, n/2] (P = V^* p,
      B = V^* B_legs): the half with negative imaginary part, ascending. Columns of V, and with
      them P and B, have an arbitrary common phase.
    """
    a, b = legs(n)
    p = np.sqrt(np.arange(n) + 0.5)
    normal = a + np.outer(p, p)  # -1/2 I + a skew-symmetric matrix
    skew = normal - np.diag(np.diag(normal))
    frequencies, vectors = np.linalg.eigh(-1j * skew)
    w, v = -0.5 + 1j * frequencies[: n // 2], vectors[:, : n // 2]
    return w, v.conj().T @ p, v.conj().T @ b, v


def s4d(init: str, n: int) -> np.ndarray:
    """S4D's diagonal A [n/2], complex128 (arXiv 2206.11893, section 4), with i = 0 … n/2 - 1.

    "diag-lin": -1/2 + i pi 1j; "diag-inv": -1/2 + (n / pi) (n / (2i + 1) - 1) 1j;
    "diag-legs": the eigenvalues w of `legs_nplr`.

    Raises:
      ValueError: another name.
    """
    check_choice("init", init, ("diag-lin", "diag-inv", "diag-legs"))
    index = np.arange(n // 2)
    if init == "diag-legs":
        return legs_nplr(n)[0]
    frequency = np.pi * index if init == "diag-lin" else n / np.pi * (n / (2 * index + 1) - 1)
    return -0.5 + 1j * frequency
