"""Collectives at the speed of links, by hand."""

import itertools

import pytest

from spade_jax.aot import hlo
from spade_jax.aot.links import Links
from spade_jax.aot.topology import CHIPS

V5E, V5P = CHIPS["v5e"], CHIPS["v5p"]


def links(kind, shape, **mesh):
    places = list(itertools.product(*map(range, shape)))
    return Links(CHIPS[kind], shape, mesh, places)


def collective(kind, axes, size):
    return hlo.Collective(kind, axes, size, ((1,),), "", "")


@pytest.mark.parametrize(
    ("kind", "shape", "mesh", "axes", "number"),
    [
        # A line of two or four chips: one link. Both axes of a square: two.
        ("v5e", (2, 2), {"fsdp": 2, "sequence": 2}, ("sequence",), 1),
        ("v5e", (2, 2), {"fsdp": 4}, ("fsdp",), 2),
        ("v5e", (4, 4), {"fsdp": 4, "sequence": 4}, ("fsdp", "sequence"), 2),
        # Whole rows of 16 are rings on v5e, pieces of them are not.
        ("v5e", (16, 16), {"fsdp": 16, "sequence": 16}, ("sequence",), 2),
        ("v5e", (16, 16), {"fsdp": 64, "sequence": 4}, ("sequence",), 1),
        ("v5e", (16, 16), {"fsdp": 256}, ("fsdp",), 4),
        # Of v5p, whole cubes of 4 are.
        ("v5p", (4, 4, 4), {"fsdp": 64}, ("fsdp",), 6),
        ("v5p", (2, 2, 4), {"fsdp": 16}, ("fsdp",), 4),
    ],
)
def test_links_in_use(kind, shape, mesh, axes, number):
    assert links(kind, shape, **mesh).bandwidth(axes) == number * CHIPS[kind].link


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("all-gather", 3 / 4 / 2),
        ("reduce-scatter", 3 / 4 / 2),
        ("all-reduce", 2 * 3 / 4 / 2),
        ("all-to-all", 4 / 4 / 2),
        ("collective-permute", 1),
    ],
)
def test_seconds_of_each_kind(kind, seconds):
    """Of four chips in a square, that give as many bytes as a link carries in a second."""
    found = links("v5e", (2, 2), fsdp=4).seconds(collective(kind, ("fsdp",), int(V5E.link)))
    assert found == pytest.approx(seconds)


def test_between_slices_the_network_carries_it():
    over = links("v5p", (2, 2, 1), fsdp=4)
    assert over.seconds(collective("all-reduce", hlo.SLICES, int(V5P.network))) == 1
