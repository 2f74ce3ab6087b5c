"""Whether every implementation of every operation computes what it should, on this device."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.cases import Case
from benchmarks.accelerator.compiling import FAILED, Attempt, attempt

# Of the largest error over the largest value, by the dtype of the operation: five times what
# bfloat16 rounds by, and a hundred times what float32 loses over sums of a thousand terms or so.
BOUNDS = {"bfloat16": 0.02, "float32": 1e-3}
OK, WRONG = "ok", "WRONG"
REFERENCE = "xla"


@dataclasses.dataclass(frozen=True)
class Check:
    """Of one implementation of one case.

    Attributes:
      verdict: OK, WRONG, or `compiling.REFUSED` or `compiling.FAILED`.
      reason: of a refusal or failure.
      errors: of the result and each gradient, by name: the largest error over the largest value;
        none where nothing was computed.
      bound: on them.
    """

    case: str
    implementation: str
    verdict: str
    reason: str
    errors: dict[str, float]
    bound: float

    @property
    def bad(self) -> bool:
        return self.verdict in (WRONG, FAILED)

    @property
    def worst(self) -> str | None:
        """The name of the largest error; NaN is larger than any."""
        if not self.errors:
            return None
        return max(self.errors, key=lambda name: np.nan_to_num(self.errors[name], nan=np.inf))


def check_all(cases: Sequence[Case], say: Callable[[str], None]) -> list[Check]:
    """Of each case the reference in float32 and every implementation, forward and backward."""
    begun = [(case, _reference(case), _implementations(case)) for case in cases]
    say(f"correctness: {sum(1 + len(tried) for *_, tried in begun)} programs traced")
    found = []
    for case, reference, tried in begun:
        exact = reference.program()
        if exact is None:
            found.append(
                Check(case.title, f"{REFERENCE} in float32", FAILED, reference.reason, {}, 0.0)
            )
            continue
        want = exact(*_wide(case))
        checks = [_check(case, name, each, want) for name, each in tried.items()]
        found += checks
        say(f"{case.title}: {', '.join(f'{c.implementation} {c.verdict}' for c in checks)}")
    return found


def _reference(case: Case) -> Attempt:
    # The matmuls of float32 too, which accelerators would otherwise round.
    with jax.default_matmul_precision("highest"):
        return attempt(case.gradient(REFERENCE), _wide(case))


def _implementations(case: Case) -> dict[str, Attempt]:
    arguments = (case.cotangent, *case.arguments.values())
    return {
        name: attempt(case.gradient(name), arguments) for name in case.operation.implementations
    }


def _wide(case: Case) -> tuple[Any, ...]:
    """The very same numbers in float32."""

    def widened(array: jax.Array) -> jax.Array:
        return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array

    return jax.tree.map(widened, (case.cotangent, *case.arguments.values()))


def _check(case: Case, name: str, tried: Attempt, want: Any) -> Check:
    program, errors, bound = tried.program(), {}, BOUNDS[case.dtype]
    if program is not None:
        try:
            got = jax.block_until_ready(program(case.cotangent, *case.arguments.values()))
            errors = errors_of(got, want)
        # A kernel that the device cannot launch is a result, too.
        except Exception as error:
            tried.fail(error)
    verdict = tried.verdict
    if verdict is None:
        verdict = OK if all(error <= bound for error in errors.values()) else WRONG
    return Check(case.title, name, verdict, tried.reason, errors, bound)


def errors_of(got: Any, want: Any) -> dict[str, float]:
    """The largest error over the largest value of each array of a tree, by its path.

    Where the largest value is 0, the largest error itself.
    """
    found = {}
    wanted = jax.tree.leaves_with_path(want)
    for (path, mine), (_, exact) in zip(jax.tree.leaves_with_path(got), wanted, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        mine, exact = _numpy(mine), _numpy(exact)
        if mine.shape != exact.shape:
            found[name] = float("nan")
            continue
        largest = np.max(np.abs(exact), initial=0.0)
        error = np.max(np.abs(mine - exact), initial=0.0)
        found[name] = float(error / largest if largest > 0 else error)
    return found


def _numpy(array: jax.Array) -> np.ndarray:
    wide = np.complex128 if jnp.iscomplexobj(array) else np.float64
    return np.asarray(array).astype(wide)
