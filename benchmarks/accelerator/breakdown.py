"""Where a device's time goes in an update: a profiler's trace, put beside the compiled program.

A trace has what ran on the device, and of each the instruction that it is of. What place of the
model that belongs to, the program says (`spade_jax.aot.origins`). Of a graph of kernels that CUDA
starts as one the trace may know no instruction; such kernels go by their names, which are those of
instructions, except those of libraries. Instructions that compute the same share a kernel, and so
the place of one of them. Compiled with `NO_GRAPHS` a program makes no such graphs.
"""

import collections
import dataclasses
import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from spade_jax.aot.hlo_program import Program
from spade_jax.aot.origins import PHASES, UNKNOWN, Origins, phase_of, place_or_rest

# Options of the compiler, by platform.
NO_GRAPHS: dict[str, dict[str, Any]] = {"gpu": {"xla_gpu_enable_command_buffer": ""}}
# Microseconds under which a kernel is mostly the starting of it.
SHORT = 5.0
STATE_SPACE = "state space"


@dataclasses.dataclass(frozen=True)
class Event:
    """What ran on a device.

    Attributes:
      instruction: the name of the one that it is of; "" where the trace does not say.
      op_name: of it, where the trace has that; else "".
      microseconds: without what others took at the same time, so that they add up to the time in
        which the device was busy.
    """

    name: str
    instruction: str
    op_name: str
    microseconds: float


@dataclasses.dataclass(frozen=True)
class Place:
    """Of one place in the model, for one update.

    Attributes:
      phases: milliseconds in each of `origins.PHASES`.
    """

    name: str
    milliseconds: float
    kernels: float
    phases: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """Of one update.

    Attributes:
      milliseconds: in which kernels ran; there are gaps between them.
      kernels: how many start.
      copies, short: how many of them copy, and how many take less than SHORT.
      copies_milliseconds, short_milliseconds: of those.
      state_space: share of the milliseconds in places of the state space.
      places: the longest first.
    """

    batch: str
    milliseconds: float
    kernels: float
    copies: float
    copies_milliseconds: float
    short: float
    short_milliseconds: float
    state_space: float
    places: list[Place]


def record(step: Callable[..., Any], state: Any, batch: Any, updates: int) -> dict[str, Any]:
    """The profiler's trace of so many updates, as `trace.json` has it."""
    options = jax.profiler.ProfileOptions()
    # Calls of Python would fill the trace, and take their time.
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(updates):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
        [path] = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            return json.load(file)


def device_events(trace: Mapping[str, Any]) -> list[Event]:
    """What ran on the first device of a trace.

    On a GPU those are the kernels and copies of its streams, on a TPU the operations of its core;
    on a CPU whatever names an instruction.
    """
    processes, threads = {}, {}
    complete = []
    for event in trace["traceEvents"]:
        if event.get("ph") == "X" and "dur" in event:
            complete.append(event)
        elif event.get("name") == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        elif event.get("name") == "thread_name":
            threads[event["pid"], event["tid"]] = event["args"]["name"]

    devices = sorted(pid for pid, name in processes.items() if name.startswith("/device:"))
    for kind in ("Stream", "XLA Ops"):
        lines = {at for at, name in threads.items() if at[0] in devices and name.startswith(kind)}
        if lines:
            first = min(pid for pid, _ in lines)
            lines = {at for at in lines if at[0] == first}
            of_device = [e for e in complete if (e["pid"], e["tid"]) in lines]
            return _in_turns(of_device) if kind == "Stream" else _own_times(of_device)
    return _own_times(e for e in complete if "hlo_op" in e.get("args", {}))


def _in_turns(events: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Each event from the end of those that began before it: a GPU begins kernels while others
    end."""
    found, until = [], 0.0
    for event in sorted(events, key=lambda event: event["ts"]):
        end = event["ts"] + event["dur"]
        found.append(_event(event, end - max(event["ts"], until)))
        until = max(until, end)
    return found


def _own_times(events: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Each event without those that begin and end within it, on the same thread."""
    found = []
    lines = collections.defaultdict(list)
    for event in events:
        lines[event["pid"], event["tid"]].append(event)
    for line in lines.values():
        line.sort(key=lambda event: (event["ts"], -event["dur"]))
        own = [event["dur"] for event in line]
        around: list[int] = []
        for index, event in enumerate(line):
            while around and line[around[-1]]["ts"] + line[around[-1]]["dur"] <= event["ts"]:
                around.pop()
            if around:
                own[around[-1]] -= event["dur"]
            around.append(index)
        found += [_event(event, microseconds) for event, microseconds in zip(line, own)]
    return found


def _event(event: Mapping[str, Any], microseconds: float) -> Event:
    told = event.get("args", {})
    return Event(
        event["name"],
        told.get("hlo_op", ""),
        told.get("tf_op") or told.get("name") or "",
        max(microseconds, 0.0),
    )


def break_down(events: Iterable[Event], text: str, updates: int, batch: str = "") -> Breakdown:
    """Sums events over the places of the model.

    Args:
      text: of the compiled program.
      updates: how many the events are of.
    """
    where = _Origins(text)
    milliseconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    kernels: dict[str, float] = collections.defaultdict(float)
    copies, short = [], []
    for event in events:
        origin = where.of(event)
        place = UNKNOWN if origin is None else place_or_rest(origin)
        took = event.microseconds / 1e3 / updates
        milliseconds[place, phase_of(origin or "")] += took
        kernels[place] += 1 / updates
        if is_copy(event):
            copies.append(took)
        if event.microseconds < SHORT:
            short.append(took)
    total = sum(milliseconds.values())
    places = []
    for name, count in kernels.items():
        phases = {phase: milliseconds.get((name, phase), 0.0) for phase in PHASES}
        places.append(Place(name, sum(phases.values()), count, phases))
    places.sort(key=lambda place: -place.milliseconds)
    state_space = sum(p.milliseconds for p in places if p.name.startswith(STATE_SPACE))
    return Breakdown(
        batch,
        total,
        sum(kernels.values()),
        len(copies) / updates,
        sum(copies),
        len(short) / updates,
        sum(short),
        state_space / total if total > 0 else 0.0,
        places,
    )


def is_copy(event: Event) -> bool:
    """Whether it moves data and computes nothing, by its names."""
    name = f"{event.name} {event.instruction}".lower()
    return "copy" in name or "memcpy" in name


class _Origins:
    """The `op_name`s of events."""

    def __init__(self, text: str):
        program = Program.of(text)
        self.by_instruction = Origins(program).all()
        self.by_kernel = {_as_kernel(name): at for name, at in self.by_instruction.items()}
        # What stands for others: a graph of kernels, or a loop.
        self.around = {
            instruction.name
            for inside in program.computations.values()
            for instruction in inside
            if instruction.kind in ("call", "while", "conditional")
        }

    def of(self, event: Event) -> str | None:
        """None where neither the trace nor the program says it."""
        precise = event.instruction not in self.around
        if precise and event.instruction in self.by_instruction:
            return self.by_instruction[event.instruction]
        if (name := _as_kernel(event.name)) in self.by_kernel:
            return self.by_kernel[name]
        return event.op_name or self.by_instruction.get(event.instruction)


def _as_kernel(name: str) -> str:
    """An instruction's name as that of a kernel."""
    return re.sub(r"\W", "_", name)
