"""Which implementation of an operation runs: the one that is named, or the platform's best.

An operation is one public function, with its checks and its documentation; what computes it are
implementations, registered here under names. All of them pass one suite of tests. "xla" is plain
JAX: it runs everywhere, takes all arguments, and is what the others are held against. Others are
kernels of one platform; `interpreted` runs them on any, for tests.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from spade_jax import partition


class Unsupported(ValueError):
    """An implementation that was named and cannot do what is asked: the message says why, and what
    can."""


_interpreted: contextvars.ContextVar[bool] = contextvars.ContextVar("interpreted", default=False)


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """What is traced within may name kernels of other platforms, and interprets them: slowly."""
    before = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(before)


def interprets() -> bool:
    """Whether kernels are to be interpreted."""
    return _interpreted.get()


def runs_elsewhere(platform: str) -> str | None:
    """Why a kernel of a platform cannot be had, as an implementation's `refuses` says it; None
    where it can, or is interpreted."""
    here = partition.platform()
    if here == platform or interprets():
        return None
    return f"runs on a {platform}, and this is for a {here}"


class Implementation(NamedTuple):
    """One way to compute an operation.

    Attributes:
      function: takes the operation's arguments.
      platforms: where it is the best: "cpu", "gpu", "tpu".
      refuses: takes the same arguments; says why it cannot take them, or None.
      best_for: takes the same arguments; whether it is the best for them on its platforms.
    """

    function: Callable[..., Any]
    platforms: tuple[str, ...]
    refuses: Callable[..., str | None]
    best_for: Callable[..., bool]


class Operation:
    """An operation by its name, and its implementations."""

    def __init__(self, name: str):
        self.name = name
        self.implementations: dict[str, Implementation] = {}

    def register(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        platforms: tuple[str, ...] = (),
        refuses: Callable[..., str | None] = lambda *arguments, **settings: None,
        best_for: Callable[..., bool] = lambda *arguments, **settings: True,
    ) -> None:
        """Adds an implementation; of several that are best on a platform, the one added last that
        takes the arguments runs."""
        self.implementations[name] = Implementation(function, platforms, refuses, best_for)

    def choose(
        self, implementation: str | None, *arguments: Any, **settings: Any
    ) -> Callable[..., Any]:
        """The function that takes these arguments.

        Args:
          implementation: a name, which never falls back; None is the best on the platform at hand.

        Raises:
          Unsupported: a name that is not registered, or that refuses the arguments.
        """
        if implementation is not None:
            if implementation not in self.implementations:
                raise Unsupported(
                    f"{self.name}: has no implementation {implementation!r}; must be one of "
                    f"{', '.join(self.implementations)}, or None for the platform's best"
                )
            named = self.implementations[implementation]
            if (reason := named.refuses(*arguments, **settings)) is not None:
                can = [
                    name
                    for name, other in self.implementations.items()
                    if other.refuses(*arguments, **settings) is None
                ]
                raise Unsupported(
                    f"{self.name}: implementation {implementation!r} {reason}; "
                    f"{', '.join(can) or 'none'} can"
                )
            return named.function
        platform = partition.platform()
        for candidate in reversed(self.implementations.values()):
            if (
                platform in candidate.platforms
                and candidate.refuses(*arguments, **settings) is None
                and candidate.best_for(*arguments, **settings)
            ):
                return candidate.function
        return self.implementations["xla"].function
