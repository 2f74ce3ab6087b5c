"""What batches hold: each kind is defined once, with the names, shapes and dtypes of its arrays.

`data` makes batches, objectives learn from them, and neither knows the other: both read the
definition, which needs no framework. Between the two, and on its way to the devices, a batch is a
dictionary of arrays.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self


class Feature(NamedTuple):
    """What one array of a batch is.

    Attributes:
      name: of the array in a dictionary.
      sequence: the array is [b, l], with l the length of this one of `Batch.SEQUENCES`; None: [b].
    """

    name: str
    sequence: str | None
    dtype: str = "int32"


class ArrayType(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Batch:
    """The batches of one objective: each field is an array, of numpy or JAX, and has a `Feature`.

    A field whose default is None is of packed batches, and need not be there.

    Attributes:
      SEQUENCES: what each row holds one of, in the order in which their lengths are given.
    """

    SEQUENCES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Self:
        """The batch that a dictionary holds.

        Raises:
          ValueError: an array too many or too few.
        """
        fields = {feature.name: field for field, feature in _features(cls).items()}
        for name in arrays:
            if name not in fields:
                raise ValueError(f"batch: has an array {name!r}; must have those of {cls.__name__}")
        for name in _needed(cls):
            if name not in arrays:
                raise ValueError(f"batch: has no array {name!r}; must have all of {cls.__name__}")
        return cls(**{fields[name]: array for name, array in arrays.items()})

    def named(self) -> dict[str, Any]:
        """The batch as a dictionary of the arrays that are there."""
        arrays = {feature.name: getattr(self, f) for f, feature in _features(type(self)).items()}
        return {name: array for name, array in arrays.items() if array is not None}

    def each(self, sequence: str, function: Callable[[Any], Any]) -> Self:
        """The batch with `function` of each array that is as long as this sequence."""
        arrays = {
            field: getattr(self, field)
            for field, feature in _features(type(self)).items()
            if feature.sequence == sequence
        }
        changed = {field: function(a) for field, a in arrays.items() if a is not None}
        return dataclasses.replace(self, **changed)

    @classmethod
    def types(cls, rows: int, lengths: Sequence[int]) -> dict[str, ArrayType]:
        """The arrays of a batch of so many rows that is not packed.

        Args:
          lengths: of its sequences.
        """
        along = dict(zip(cls.SEQUENCES, lengths, strict=True))
        needed = _needed(cls)
        return {
            name: ArrayType((rows,) if sequence is None else (rows, along[sequence]), dtype)
            for name, sequence, dtype in _features(cls).values()
            if name in needed
        }

    @property
    def num_tokens(self) -> int:
        """Its tokens of text, padding left out, by which speed is told; of arrays of numpy."""
        raise NotImplementedError


def _features(kind: type[Batch]) -> dict[str, Feature]:
    """By field."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(kind)}


def _needed(kind: type[Batch]) -> list[str]:
    """The names of the arrays that every batch has."""
    features = _features(kind)
    return [features[f.name].name for f in dataclasses.fields(kind) if f.default is not None]
