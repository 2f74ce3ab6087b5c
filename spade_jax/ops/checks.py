"""What operations say of arguments that cannot be."""

from typing import Any


def check(condition: bool, argument: str, value: Any, right: str) -> None:
    """Raises ValueError, with the argument, its value and what would be right, unless `condition`
    holds."""
    if not condition:
        raise ValueError(f"{argument} = {value!r}: {right}")


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    check(value in choices, argument, value, f"must be one of {', '.join(map(repr, choices))}")
