"""Tables to fine-tune on, and the command line of a run on them."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Rows that say whether a number is even: 25 to train on, 9 of which 6 are "no", 3 secret."""
    directory = tmp_path_factory.mktemp("tables")

    def write(name, rows):
        lines = (json.dumps(row) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text("".join(lines))

    write("train", [{"text": f"number {i}", "label": ("yes", "no")[i % 2]} for i in range(25)])
    write("validation", [{"text": f"number {i}", "label": int(i % 3 == 0)} for i in range(30, 39)])
    write("test", [{"text": f"number {i}"} for i in range(3)])
    return directory


@pytest.fixture(scope="session")
def arguments(pretrained, tables):
    """The command line of the smallest run, without its workdir."""
    files = [f"--config.task.{s}={tables}/{s}.jsonl" for s in ("train", "validation", "test")]
    return [f"--config={HERE / 'miniature.py'}", f"--config.init_from={pretrained}", *files]
