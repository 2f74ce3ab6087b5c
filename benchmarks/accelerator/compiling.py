"""Many programs, compiled side by side; one that cannot be had is no reason to have none."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from spade_jax.ops.dispatch import Unsupported

# So many at a time leave a core or two to what traces.
_WORKERS = max(1, (os.cpu_count() or 1) - 2)
_POOL = concurrent.futures.ThreadPoolExecutor(_WORKERS)

REFUSED, FAILED = "refused", "FAILED"


@dataclasses.dataclass
class Attempt:
    """A program that is being compiled.

    Attributes:
      verdict: REFUSED, where an implementation says that it cannot do this; FAILED, where it could
        not be traced or compiled; None where there is a program, or may be.
      reason: of that verdict.
    """

    future: concurrent.futures.Future | None = None
    verdict: str | None = None
    reason: str = ""

    def program(self) -> jax.stages.Compiled | None:
        """The compiled one, waited for; None where there is none."""
        if self.future is None:
            return None
        try:
            return self.future.result()
        except Exception as error:
            self.future = None
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        """Notes what went wrong, be it in compiling or later."""
        self.verdict, self.reason = FAILED, _short(error)


def attempt(
    function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any] | None = None
) -> Attempt:
    """Traces a function of these arguments, or a jitted one, and begins to compile it.

    Args:
      options: of the compiler.
    """
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    try:
        lowered = jitted.lower(*arguments)
    except Unsupported as refusal:
        return Attempt(verdict=REFUSED, reason=str(refusal))
    # Whatever a kernel's compiler raises is a result.
    except Exception as error:
        tried = Attempt()
        tried.fail(error)
        return tried
    return Attempt(_POOL.submit(lowered.compile, compiler_options=options))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
