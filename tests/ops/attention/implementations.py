"""Operations by each of their implementations, for the suites that all of them pass."""

import functools

import pytest

from spade_jax.ops.dispatch import Unsupported

# What no other platform can interpret.
_OF_ONE_PLATFORM = {"cudnn"}


def interpretable(operation):
    """The names of its implementations, as parameters of a suite."""
    return [name for name in operation.implementations if name not in _OF_ONE_PLATFORM]


def named(operation, name):
    """An operation's public function, computed by the implementation of this name.

    A test that asks for what the implementation refuses is skipped, with its reason.
    """

    @functools.wraps(operation)
    def attend(*arrays, **settings):
        try:
            return operation(*arrays, implementation=name, **settings)
        except Unsupported as refusal:
            pytest.skip(str(refusal))

    return attend
