"""Values of TFDS as Python has them."""

import numpy as np

from spade_jax.data.text_to_text.values import python_value


def test_values_of_tfds():
    values = {
        "text": (b"zw\xc3\xb6lf", "zwölf"),
        "number": (np.int64(3), 3),
        "score": (np.float32(2.5), 2.5),
        "shortest": (np.float32(3.8), 3.8),
        "shortest_of_several": (np.array([3.8, 1 / 3], np.float16), [3.8, 0.3333]),
        "no_dimension": (np.array(3.8, np.float32), 3.8),
        "texts": (np.array([b"a", b"\xc3\xb6"], object), ["a", "ö"]),
        "none": (np.array([], object), []),
        "nested": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        "string": ("as it is", "as it is"),
        "gap": (None, None),
    }
    for value, expected in values.values():
        assert python_value(value) == expected
        assert type(python_value(value)) is type(expected)
