"""A run's page: what it tells, and that nothing of the data is markup in it."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from damage import each_damage
from small_run import SCRIPT, write_run

from spade_jax.config import ConfigError, RunError
from spade_jax.report import sections
from spade_jax.report.__main__ import main
from spade_jax.report.circumstances import seconds_by_cause
from spade_jax.report.page import page as page_of
from spade_jax.report.page import write_report
from spade_jax.report.scores import confusion, points
from spade_jax.report.workdir import read_workdir

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    write_run(workdir)
    return write_report(workdir)


class Reader(html.parser.HTMLParser):
    """What elements a page has, and the text of those that are shown."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.pieces = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)


@pytest.fixture(scope="module")
def page(path):
    return Reader(path.read_text())


def text(page):
    return "|".join(page.pieces)


def test_what_comes_from_data_is_text(path, page):
    assert page.open == []
    assert "script" not in {name for name, _ in page.elements}
    # The baseline, an input, a prediction and that again as a wrong one, a sample's input, and of
    # the data a set, a note and a file; in settings quotes are JSON's.
    assert sum(SCRIPT in piece for piece in page.pieces) == 8
    assert json.dumps(SCRIPT) in page.pieces
    assert "<script" not in path.read_text()


def test_it_needs_no_other_file(path, page):
    sources = [own[name] for _, own in page.elements for name in ("src", "href") if name in own]
    assert {source[:19] for source in sources if source[0] != "#"} == {"data:image/svg+xml;"}
    assert re.search(r"https?://|@import|url\(", path.read_text()) is None


def test_what_it_tells(page):
    said = text(page)
    for words in (
        "Fine-tuning · 10 parameters · 1 x cpu · step 20 of 20 · best at step 10",
        "validation|accuracy|50.00|25.00–75.00|75.00|most common",
        "1 of 4 predictions are no label",
        "no|100.00|33.33|50.00|3",  # precision, recall, F1, examples
        "yes|50.00|100.00|66.67|1",
        "1 of 10 predictions are no finite number",
        "step|prediction|10|guess 10 (probability 0.70)|20|guess 20 (probability 0.70)",
        "1,234",
        "training|6.00 s|66.7%|",
        "compile|3.00 s|33.3%|",
        "after step|setting|was|is|10|train.steps|10|20",
        "train.batch_size|2",
        "steps a second|4",
    ):
        assert words in said
    assert [name for name, _ in page.elements].count("img") == 4


def test_a_page_of_what_there_is(path, tmp_path, capsys):
    """Of a run that is at work or was stopped; and of an evaluation alone."""
    for kept, words in (
        (("metrics.jsonl",), "Curves|Time|Changes"),
        (("results.json", "predictions-test.jsonl"), "Results|Predictions: test"),
    ):
        folder = tmp_path / kept[0]
        folder.mkdir()
        for name in kept:
            shutil.copy(path.parent / name, folder)
        assert main([str(folder)]) == 0
        assert words in text(Reader((folder / "report.html").read_text()))
    capsys.readouterr()
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: RUN = {str(tmp_path)!r}: holds neither metrics.jsonl nor results.json; must be "
        "the workdir of a run\n"
    )
    with pytest.raises(ConfigError, match=r"RUN = "):
        write_report(tmp_path / "nowhere")
    (folder / "samples.jsonl").write_text('{"step": "one"}\n')
    with pytest.raises(RunError, match=r"samples.jsonl: line 1: is damaged \("):
        write_report(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "facts.json", "metrics.jsonl", "results.json", "samples.jsonl"]
)
def test_damaged_files(path, tmp_path, monkeypatch, name):
    """A sentence, or a page of what can be read."""
    monkeypatch.setattr(sections, "data_uri", lambda figure: "data:,")
    workdir = tmp_path / "run"
    shutil.copytree(path.parent, workdir)
    refused = each_damage(workdir / name, 5, lambda: page_of(read_workdir(workdir)), RunError)
    assert refused >= 10


def test_a_confusion_matrix_by_hand():
    found = confusion(("a", "b"), ["a", "a", "b ", "b", "b"], ["a", "b", "b", "", "a"])
    np.testing.assert_array_equal(found.counts, [[1, 1, 0], [1, 1, 1]])
    assert found.no_label == 1
    assert found.per_class() == [
        ("a", 1 / 2, 1 / 2, 1 / 2, 2),
        ("b", 1 / 2, 1 / 3, pytest.approx(2 / 5), 3),
    ]


def test_points_are_numbers():
    true, predicted, none = points(["1", "2", "3"], ["1.5", "x", "inf"])
    assert (true.tolist(), predicted.tolist(), none) == ([1.0], [1.5], 2)


def test_time_is_that_of_all_starts():
    lines = [
        {"seconds": seconds, "goodput": 0.5, "lost/data": 0.5} for seconds in (2.0, 6.0, 1.0, 4.0)
    ]
    spent, starts = seconds_by_cause([{"loss": 1.0}, *lines])
    assert (spent["training"], spent["data"], spent["compile"], starts) == (5.0, 5.0, 0.0, 2)


@pytest.mark.slow
def test_a_browser_shows_it(path, tmp_path):
    """Without network: all pictures are there, no text has run, and the page is not blank."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"there is none of {', '.join(BROWSERS)}")
    sizes = "[...document.images].map(image => image.naturalWidth).join()"
    ready = "addEventListener('load', () => {{ document.body.dataset.sizes = {}; }})"
    copy = tmp_path / "report.html"
    script = f"<script>{ready.format(sizes)}</script></body>"
    copy.write_text(path.read_text().replace("</body>", script))

    def browse(*options):
        return subprocess.run(
            [
                browser,
                "--headless",
                "--disable-gpu",
                "--no-sandbox",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1100,1600",
                *options,
                copy.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    shown = browse("--dump-dom")
    found = re.search(r'data-sizes="([\d,]+)"', shown)[1].split(",")
    assert len(found) == 4
    assert all(int(width) > 0 for width in found)
    assert f"<title>{path.parent.name}</title>" in shown
    browse(f"--screenshot={tmp_path / 'page.png'}")
    from matplotlib.image import imread

    pixels = imread(tmp_path / "page.png")
    assert pixels.shape[:2] == (1600, 1100)
    assert 0.01 < (pixels[..., :3].min(-1) < 0.9).mean() < 0.5
