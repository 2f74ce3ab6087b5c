"""report.html: a run on one page, which needs no other file and no network."""

import itertools
from pathlib import Path

from rich.console import Console

from spade_jax import hosts
from spade_jax.report import circumstances, sections
from spade_jax.report.html import Html, element, join, paragraph
from spade_jax.report.workdir import Contents, read_workdir
from spade_jax.runs.workdir import replace_file

NAME = "report.html"
_SECTIONS = (
    sections.results,
    sections.curves,
    sections.sets,
    sections.samples,
    circumstances.data,
    circumstances.time,
    circumstances.changes,
    circumstances.configuration,
    circumstances.versions,
)
_PROGRAMS = {"pretrain": "Pre-training", "finetune": "Fine-tuning"}
_STYLE = """
body { max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; color: #1b1b1b;
       background: #fff; font: 16px/1.5 "Source Sans 3", "Segoe UI", Roboto, "Helvetica Neue",
       Arial, sans-serif; }
h1 { font-size: 1.75rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
     border-top: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 42rem; margin: .5rem 0; }
nav { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 1rem 0 0; }
a { color: #1a4f8b; }
.about { color: #555; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; border-bottom-color: #999; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; padding-left: .75rem; }
.text { display: block; white-space: pre-line; overflow-wrap: anywhere; min-width: 14rem; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
       overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
@media print { details > * { display: block; } nav { display: none; } }
"""


def write_report(workdir: Path, console: Console | None = None) -> Path:
    """Writes a run's page anew; of several processes the first one does.

    Args:
      console: told where it is, if there is one.

    Raises:
      ConfigError: the folder is no run's.
      RunError: a file in it is damaged.
    """
    path = workdir / NAME
    if hosts.is_first():
        replace_file(path, page(read_workdir(workdir)))
        if console is not None:
            console.print(f"report: {path}")
    return path


def page(run: Contents) -> str:
    """The whole page."""
    found = list(itertools.chain(*(make(run) for make in _SECTIONS)))
    links = (element("a", section.title, href=f"#{number}") for number, section in enumerate(found))
    name = run.workdir.absolute().name
    body = element(
        "body",
        element("h1", name),
        paragraph(element("span", _about(run), class_="about")),
        element("nav", *links),
        *(
            element("section", element("h2", section.title), section.content, id=str(number))
            for number, section in enumerate(found)
        ),
    )
    head = (
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", name),
        element("style", Html(_STYLE)),
    )
    return join(
        (Html("<!DOCTYPE html>\n"), element("html", element("head", *head), body, lang="en"))
    )


def _about(run: Contents) -> str:
    """What it is, in a line."""
    words = []
    if run.facts is not None:
        words.append(_PROGRAMS.get(run.facts["program"], run.facts["program"]))
        words.append(f"{run.facts['parameters']:,} parameters")
        words.append(run.facts["devices"])
    steps = (run.settings or {}).get("train", {}).get("steps")
    if run.step:
        words.append(f"step {run.step:,}" + (f" of {steps:,}" if isinstance(steps, int) else ""))
    if run.best is not None:
        words.append(f"best at step {run.best:,}")
    return " · ".join(words)
