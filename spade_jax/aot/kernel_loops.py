"""Loops in Mosaic kernels whose rounds depend on the place in the grid: of causal attention, say.

The compiler's profile counts one round of such a loop, but all rounds between bounds that are
constants. So these are put, for counting alone, in place of what the kernel computes.
"""

import base64
import io
import json
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

_DIALECT = "stable_mosaic."
_EXACT: dict[str, Callable[..., Any]] = {
    "arith.addi": operator.add,
    "arith.subi": operator.sub,
    "arith.muli": operator.mul,
    # Towards zero.
    "arith.divsi": lambda a, b: (np.sign(a) * np.sign(b)) * (abs(a) // np.maximum(abs(b), 1)),
    "arith.remsi": np.fmod,
    "arith.minsi": np.minimum,
    "arith.maxsi": np.maximum,
    "arith.andi": operator.and_,
    "arith.ori": operator.or_,
    "arith.xori": operator.xor,
    "arith.select": np.where,
    "arith.index_cast": lambda a: a,
    "arith.extsi": lambda a: a,
    "arith.trunci": lambda a: a,
}
# By the number of the predicate.
_COMPARED = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)


class _Unknown(Exception):
    """What a kernel computes from more than its place in the grid."""


def with_mean_rounds(settings: str, rounding: Callable[[float], int]) -> tuple[str, bool]:
    """A kernel whose loops have the mean of their rounds over the grid, rounded so.

    Args:
      settings: as of `kernels.Kernel`.

    Returns:
      The settings, and whether the rounds of all loops are known now: not where they depend on
      data, or where this JAX cannot read kernels.
    """
    try:
        from jax.experimental.mosaic.dialects import tpu
        from jaxlib.mlir import ir
    except ImportError:
        return settings, False
    given = json.loads(settings)
    config = given["custom_call_config"]
    with ir.Context() as context, ir.Location.unknown():
        tpu.register_dialect(context)
        context.allow_unregistered_dialects = True
        try:
            module = ir.Module.parse(base64.b64decode(config["body"]))
        except ir.MLIRError:
            return settings, False
        found = [_settle(ir, function, rounding) for function in module.body.operations]
        if any(changed for changed, _ in found):
            code = io.BytesIO()
            module.operation.write_bytecode(code)
            config["body"] = base64.b64encode(code.getvalue()).decode()
            settings = json.dumps(given)
    return settings, all(known for _, known in found)


def _settle(ir: Any, function: Any, rounding: Callable[[float], int]) -> tuple[bool, bool]:
    """Whether any loop of a function was changed, and whether all are known then."""
    grid: list[int] = []
    if "iteration_bounds" in function.attributes:
        sizes = ir.DenseI64ArrayAttr(function.attributes["iteration_bounds"])
        # Negative ones are known at run time alone: then no place is.
        grid = list(sizes) if min(sizes, default=0) > 0 else []
    places = np.indices(grid, dtype=np.int64).reshape(len(grid), math.prod(grid))
    entry = function.regions[0].blocks[0]
    changed, known = False, True
    for loop in [op for op in _all(entry) if _kind(op) in ("scf.for", "scf.while")]:
        if _kind(loop) == "scf.while":
            known = False
            continue
        lower, upper, step = loop.operands[0], loop.operands[1], loop.operands[2]
        try:
            first, last, width = (_value(ir, v, entry, places) for v in (lower, upper, step))
        except _Unknown:
            known = False
            continue
        rounds = np.maximum(0, -((first - last) // width))
        if np.ndim(first) == np.ndim(last) == 0:
            continue
        begin, each = int(np.ravel(first)[0]), int(np.ravel(width)[0])
        end = begin + rounding(float(np.mean(rounds))) * each
        for index, number in ((0, begin), (1, end)):
            loop.operands[index] = ir.Operation.create(
                f"{_DIALECT}arith.constant",
                results=[lower.type],
                attributes={"value": ir.IntegerAttr.get(lower.type, number)},
                ip=ir.InsertionPoint(loop),
            ).result
        changed = True
    return changed, known


def _all(block: Any) -> Any:
    """All operations in a block, also within others."""
    for view in block.operations:
        yield view.operation
        for region in view.operation.regions:
            for inner in region.blocks:
                yield from _all(inner)


def _kind(op: Any) -> str:
    return op.name.removeprefix(_DIALECT)


def _value(ir: Any, value: Any, entry: Any, places: np.ndarray) -> Any:
    """Of a whole number at all places of the grid; a plain number where it is the same at all.

    Args:
      entry: the kernel's block, whose first arguments are the place in the grid.
      places: [axes of the grid, places].
    """
    if isinstance(value.owner, ir.Block):
        argument = ir.BlockArgument(value)
        if value.owner != entry or argument.arg_number >= len(places):
            raise _Unknown
        return places[argument.arg_number]
    op = value.owner
    if _kind(op) == "arith.constant":
        try:
            return np.int64(ir.IntegerAttr(op.attributes["value"]).value)
        except ValueError:
            raise _Unknown from None
    operands = [_value(ir, operand, entry, places) for operand in op.operands]
    if _kind(op) == "arith.cmpi":
        predicate = ir.IntegerAttr(op.attributes["predicate"]).value
        if predicate < len(_COMPARED):
            return _COMPARED[predicate](*operands)
    if _kind(op) not in _EXACT:
        raise _Unknown
    return _EXACT[_kind(op)](*operands)
