"""Seconds, and what they are spent on."""

import time
import traceback
from collections.abc import Callable


class Budget:
    """Runs parts as long as there is time for them, and prints when what happened.

    Attributes:
      left_out: the names of parts for which there was none.
      failed: of parts that did not come to their end.
    """

    def __init__(self, seconds: float):
        self._begun, self._seconds = time.monotonic(), seconds
        self.left_out: list[str] = []
        self.failed: list[str] = []

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
        """Runs a part that should take so many seconds, or leaves it out.

        A part that fails is told, and the others run all the same: an accelerator is dear.
        """
        if not self.has(expected):
            self.left_out.append(name)
            return
        self.say(f"{name}, for about {expected:.0f} s")
        try:
            part()
        except Exception:
            traceback.print_exc()
            self.failed.append(name)
