"""Seconds, and what they are spent on."""

import time
from collections.abc import Callable


class Budget:
    """Runs parts as long as there is time for them, and prints when what happened.

    Attributes:
      left_out: the names of parts for which there was none.
    """

    def __init__(self, seconds: float):
        self._begun, self._seconds = time.monotonic(), seconds
        self.left_out: list[str] = []

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def has(self, seconds: float) -> bool:
        """Whether so many are left."""
        return self._seconds - self.spent >= seconds

    def say(self, words: str) -> None:
        print(f"[{self.spent:6.1f} s] {words}", flush=True)

    def run(self, name: str, expected: float, part: Callable[[], None]) -> None:
        """Runs a part that should take so many seconds, or leaves it out."""
        if not self.has(expected):
            self.left_out.append(name)
            return
        self.say(f"{name}, for about {expected:.0f} s")
        part()
