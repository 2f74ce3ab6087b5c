"""Names of the places in a model and its step, which programs carry into compiled code.

XLA writes the scopes around an operation into its instructions' `op_name`, where derivatives and
rematerialised code have them too: `jit(step)/transpose(jvp(place.feed-forward))/dot_general`.
"""

import contextlib
import re
from collections.abc import Iterator

import jax

# XLA drops what stands behind an @.
_MARK = "place."
_PLACE = re.compile(rf"\b{re.escape(_MARK)}([\w\-]+)")


@contextlib.contextmanager
def place(name: str) -> Iterator[None]:
    """Names what is computed within: a context, or the decorator of a function.

    Args:
      name: letters, digits, hyphens and spaces. Of places within each other the innermost counts.
    """
    with jax.named_scope(_MARK + name.replace(" ", "_")):
        yield


def place_of(op_name: str) -> str | None:
    """The innermost place in an instruction's `op_name`; None where it names none."""
    found = _PLACE.findall(op_name)
    return found[-1].replace("_", " ") if found else None
