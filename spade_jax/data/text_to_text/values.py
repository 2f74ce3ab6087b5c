"""Values of Parquet and TFDS as Python has them: strings, numbers and lists of them."""

from typing import Any

import numpy as np


def python_value(value: Any) -> Any:
    """A value of TFDS as strings, numbers and lists of them."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.floating):
        return shortest(value)
    if isinstance(value, np.ndarray | list):
        return [python_value(item) for item in value]
    if isinstance(value, np.generic):
        return value.tolist()
    return value


def shortened(value: Any, kind: Any) -> Any:
    """A value of an Arrow type, with the numbers in it as `shortest` gives them."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_float16(kind) or types.is_float32(kind):
        return shortest((np.float16 if types.is_float16(kind) else np.float32)(value))
    if types.is_dictionary(kind):
        return shortened(value, kind.value_type)
    if types.is_struct(kind):
        return {field.name: shortened(value[field.name], field.type) for field in kind}
    if types.is_map(kind):
        return [(shortened(k, kind.key_type), shortened(v, kind.item_type)) for k, v in value]
    if types.is_nested(kind):  # Lists of all kinds.
        return [shortened(item, kind.value_type) for item in value]
    return value


def shortest(number: np.floating) -> float:
    """The shortest decimal that means a number in its own precision, as a Python float.

    A float32 that is nearest to 3.8 becomes 3.8, where `float` gives 3.799999952316284.
    """
    return float(str(number))
