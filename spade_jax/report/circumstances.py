"""Sections of a page on how a run came about: data, time, changes, settings and versions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spade_jax.report.html import Html, Number, element, join, paragraph, table
from spade_jax.report.sections import Section
from spade_jax.report.workdir import Contents
from spade_jax.telemetry.goodput import CAUSES


def data(run: Contents) -> Iterator[Section]:
    """Sets, their sizes, and what was cut."""
    if run.facts is None:
        return
    pieces = []
    rows = run.facts["data"]
    if rows:
        heads = list(dict.fromkeys(name for row in rows for name in row))
        pieces.append(table(heads, ([row.get(name, "") for name in heads] for row in rows)))
    pieces += [paragraph(note) for note in run.facts["notes"]]
    files = [
        (setting, name, digest)
        for setting, own in run.facts["files"].items()
        for name, digest in own.items()
    ]
    if files:
        inner = table(("setting", "read from", "digest"), files)
        pieces.append(element("details", element("summary", "Files"), inner))
    yield Section("Data", join(pieces))


def time(run: Contents) -> Iterator[Section]:
    """How fast it went, and what the time was spent on."""
    train = [line for line in run.lines if line["kind"] == "train"]
    if not train:
        return
    rows = []
    speeds = [line for line in train if "tokens_per_second" in line]
    if speeds:
        last = speeds[-1]
        rows.append(("tokens a second", Number(f"{last['tokens_per_second']:,.0f}")))
        if last.get("seconds_per_step", 0) > 0:
            rows.append(("steps a second", Number(f"{1 / last['seconds_per_step']:,.3g}")))
        if "mfu" in last:
            rows.append(("of the devices' peak", Number(f"{last['mfu']:.1%}")))
    evaluations = [
        line["seconds"] for line in run.lines if line["kind"] == "eval" and "seconds" in line
    ]
    if evaluations:
        mean = sum(evaluations) / len(evaluations)
        rows.append((f"an evaluation, mean of {len(evaluations)}", Number(_seconds(mean))))
    pieces = [table(("speed", ""), rows)] if rows else []
    spent, starts = seconds_by_cause(train)
    if spent:
        total = sum(spent.values()) or 1.0
        shares = (
            (cause, Number(_seconds(value)), Number(f"{value / total:.1%}"))
            for cause, value in (*spent.items(), ("in all", total))
        )
        pieces.append(table(("time went to", "", "share"), shares))
        pieces.append(
            paragraph(
                f"Up to the last logged step, of {starts} start{'s' if starts > 1 else ''}; "
                "training is what is left when all others are taken away."
            )
        )
    yield Section("Time", join(pieces))


def seconds_by_cause(train: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], int]:
    """What time went to, in seconds, and in how many starts of the run.

    Args:
      train: lines of metrics.jsonl, whose `seconds` begin anew with each start. Of earlier versions
        they have none, and nothing is said.
    """
    timed = [line for line in train if "seconds" in line and "goodput" in line]
    ends = [
        line
        for line, after in zip(timed, [*timed[1:], None])
        if after is None or after["seconds"] < line["seconds"]
    ]
    spent: dict[str, float] = {}
    for line in ends:
        shares = {"training": line["goodput"]}
        shares |= {cause: line.get(f"lost/{cause}", 0.0) for cause in CAUSES}
        for cause, share in shares.items():
            spent[cause] = spent.get(cause, 0.0) + share * line["seconds"]
    return spent, len(ends)


def changes(run: Contents) -> Iterator[Section]:
    """Settings that were others before some step."""
    rows = [
        (line["step"], name, *map(json.dumps, values))
        for line in run.lines
        if line["kind"] == "change"
        for name, values in line["changes"].items()
    ]
    if rows:
        yield Section("Changes", table(("after step", "setting", "was", "is"), rows))


def configuration(run: Contents) -> Iterator[Section]:
    """All settings."""
    if run.settings is not None:
        rows = [(element("code", name), value) for name, value in _flat(run.settings)]
        whole = table(("setting", "value"), rows)
        inner = element("details", element("summary", f"{len(rows)} settings"), whole)
        yield Section("Configuration", inner)


def versions(run: Contents) -> Iterator[Section]:
    """The machine and the packages."""
    if run.facts is None:
        return
    facts = run.facts
    about = [
        ("parameters", facts["parameters"]),
        ("of these trained", facts["trained"]),
        ("devices", Number(facts["devices"])),
        ("processes", facts["processes"]),
    ]
    packages = [(name, Number(version)) for name, version in facts["versions"].items()]
    yield Section("Machine and versions", _beside(table(("", ""), about), packages))


def _beside(first: Html, packages: Sequence[Sequence[object]]) -> Html:
    return join((first, table(("package", "version"), packages)))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, json.dumps(value, ensure_ascii=False)


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value < 60 else f"{value / 60:,.1f} min"
