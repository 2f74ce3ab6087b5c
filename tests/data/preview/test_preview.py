"""The command that shows data: numbers counted by hand, samples, and what is at fault."""

import re

import pytest

from spade_jax.data import sources
from spade_jax.data.config import SourceConfig, TextBlocksConfig
from spade_jax.data.preview.__main__ import main
from spade_jax.data.preview.text import look_at_text


@pytest.fixture
def preview(tmp_path, capsys):
    """Runs the command on settings; gives its status, and what it prints or else its error."""

    def run(settings, *options):
        path = tmp_path / "config.py"
        path.write_text(f"def get_config():\n    return {settings!r}\n")
        status = main([f"--config={path}", *options])
        out, error = capsys.readouterr()
        return status, error.removeprefix("error: ").strip() if status else out.splitlines()

    return run


def write(path, *rows) -> str:
    path.write_text("".join(f"{','.join(row)}\n" for row in (("text", "label"), *rows)))
    return str(path)


def test_pairs_are_counted(tmp_path, preview):
    train = [("aaaa", "good"), ("bb", "bad"), ("aaaa", "bad"), ("cc<b>cc", "good")]
    task = {
        "train": write(tmp_path / "train.csv", *train),
        "validation": write(tmp_path / "validation.csv", ("bb", "good"), ("dd", "bad")),
        "inputs": ("text",),
        "target": "label",
        "labels": ("bad", "good", "poor"),
        "vocabulary": "bytes",
        "input_length": 6,
        "target_length": 5,
    }
    picture = tmp_path / "lengths.png"
    status, lines = preview({"task": task}, f"--picture={picture}")
    assert status == 0
    assert lines[:9] == [
        "local_pairs, train: 4 rows",
        # With their ends 5, 3, 5 and 8.
        "  inputs: 21 tokens, none unknown to the vocabulary; p50 5, p95 8, p99 8, longest 8; 1 "
        "(25.0%) are cut at task.input_length = 6",
        "  targets: 18 tokens, none unknown to the vocabulary; p50 4, p95 5, p99 5, longest 5; 0 "
        "(0.0%) are cut at task.target_length = 5",
        "  classes: bad 2, good 2, poor 0",
        "  1 rows are equal to one before",
        "  1 inputs are cut at 6 tokens: p95 is 8; task.input_length=16 would hold 95%",
        "  example 1",
        "    input   aaaa",
        "    target  good",
    ]
    (begin,) = (i for i, line in enumerate(lines) if line == "local_pairs, validation: 2 rows")
    assert "  1 rows are in local_pairs, train as well" in lines[begin:]
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, lines = preview({"task": task}, "--limit=2")
    assert lines[0] == "local_pairs, train: the first 2 rows (more with --limit)"
    assert "  no rows come twice" in lines


def test_classes_are_counted(tmp_path, preview):
    rows = [("aabx", "1"), ("ab", "0"), ("bb", "1"), ("bb", "1")]
    data = {
        "kind": "classification",
        "train": write(tmp_path / "train.csv", *rows),
        "validation": write(tmp_path / "validation.csv", ("xx", "0")),
        "encoding": "characters",
        "alphabet": "ab",
        "length": 3,
    }
    status, lines = preview({"data": data})
    assert status == 0
    assert lines[:4] == [
        "train: 4 rows",
        "  inputs: 10 tokens, 1 (10.00%) unknown to the vocabulary; p50 2, p95 4, p99 4, longest "
        "4; 1 (25.0%) are cut at data.length = 3",
        "  classes: 0 1, 1 3",
        "  1 rows are equal to one before",
    ]
    assert lines[6:8] == ["    inputs  aab", "    class   1"]
    held_out = data | {"validation": "", "validation_share": 0.5, "alphabet": None, "min_count": 1}
    status, lines = preview({"data": held_out}, "--limit=3")
    assert sum(int(n) for line in lines for n in re.findall(r"the first (\d) rows", line)) == 3


def test_masked_spans_fit_into_their_places(preview):
    """Of the text that is shipped, whose examples are longer than what is shown of one."""
    settings = {"data": {"input_length": 60}}
    status, lines = preview(settings, "--limit=2")
    assert status == 0
    begin = lines.index("  example 2")
    passage, spans = (line[len("    target  ") :] for line in lines[begin + 1 : begin + 3])
    spans = re.findall(r"\[(.*?)\]", spans)
    assert passage.count("[…]") == len(spans) > 2
    for span in spans:
        passage = passage.replace("[…]", span, 1)
    assert passage[:40] in _first_document()


def _first_document():
    text = next(sources.iterate_documents(SourceConfig(), "train"))
    return " ".join(text.decode().split())


def test_blocks_within_documents_are_filled_up(tmp_path):
    (tmp_path / "a.txt").write_text("abc\nabc\ndefghi\n")
    (tmp_path / "b.txt").write_text("abc\nno\n")
    source = SourceConfig(kind="text", train=f"{tmp_path}/a.txt", validation=f"{tmp_path}/b.txt")
    config = TextBlocksConfig(sources=(source,), input_length=4, across_documents=False)
    train, validation = look_at_text(config, limit=10)
    assert list(train.brief()) == [
        # With their ends 4, 4 and 7.
        "train: 3 documents; 4 blocks of 4 tokens, 6.2% of them padding; documents: 15 tokens, "
        "none unknown to the vocabulary; p50 4, p95 7, p99 7, longest 7; 1 (33.3%) are longer than "
        "the 4 tokens of an example",
        "train: 1 documents are equal to one before",
    ]
    assert list(validation.brief())[1:] == ["validation: 1 documents are in train as well"]
    assert [text for ((_, text),) in train.examples] == ["abc", "abc", "defg"]


def test_of_much_data_the_first_is_read_alone(tmp_path, preview, monkeypatch):
    monkeypatch.setattr(sources, "CHECKED_BYTES", 0)
    path = tmp_path / "a.txt"
    path.write_bytes(b"a line of text\n" * 5000 + b"caf\xe9\n")
    source = {"kind": "text", "train": str(path)}
    status, lines = preview({"data": {"sources": (source,)}}, "--limit=3")
    assert status == 0
    assert lines[0] == "train: the first 3 documents (more with --limit)"
    assert lines[1].startswith("  documents: 42 tokens, none unknown")


@pytest.mark.parametrize(
    ("settings", "option", "message"),
    [
        ({"data": {}}, "--picture=a.pdf", "--picture = 'a.pdf': must end in .png or .svg"),
        ({"data": {"inputlength": 3}}, "--limit=1", "config.data.inputlength: no such setting"),
        (
            {"task": {"train": "a.csv", "inputs": ("a",), "target": "b"}},
            "--limit=1",
            "task.vocabulary = None: must be set where init_from is not the workdir of a run",
        ),
        (
            {"data": {"sources": ({"kind": "text", "train": "EMPTY"},)}},
            "--limit=1",
            "EMPTY: holds no text; must have at least one document",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    tmp_path, preview, monkeypatch, settings, option, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").write_text("")
    status, said = preview(settings, option)
    assert status == 2
    assert said.startswith(message)
    assert "\n" not in said
