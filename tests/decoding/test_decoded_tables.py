"""Tables through decoding: what is read, what is written, and what goes on where it was stopped."""

import argparse
import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spade_jax
from spade_jax.config import ConfigError, RunError
from spade_jax.data.text_to_text.tables import read_rows
from spade_jax.decoding.__main__ import main
from spade_jax.decoding.documents import of_table
from spade_jax.decoding.outputs import write_outputs
from spade_jax.decoding.partial import Partial

KINDS = (".jsonl", ".csv", ".tsv", ".parquet")
ROWS = [
    {"id": "7", "text": 'One "quoted" line,\nanother\n\n  and a third\t'},
    {"id": "8", "text": "国情咨文。\n第二段"},
    {"id": "9", "text": "plain"},
]
OUTPUTS = ["an\noutput", 'of "three",', "行"]
LOCAL = {"name": "local_pairs", "train": "t.csv", "inputs": ["question", "context"], "target": "a"}


def options(path, output=None, **more):
    given = {"inputs": None, "task": None, "output_column": "prediction", "input": str(path)}
    return argparse.Namespace(**given | {"output": output and str(output)} | more)


def write(path, rows):
    """A table by other means than those that are tested."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def through(path, output, outputs=OUTPUTS, **more):
    """What decoding reads of a table, and the rows of what it writes."""
    documents = of_table(options(path, output, **more), path.suffix, {})
    write_outputs([outputs[:2], outputs[2:]], documents, str(output), None)
    return [line.text for line in documents.lines], [row for _, row in read_rows(str(output))]


@pytest.mark.parametrize("source", [kind for kind in KINDS if kind != ".tsv"])
def test_documents_come_out_as_they_went_in(source, tmp_path):
    path = write(tmp_path / f"in{source}", ROWS)
    expected = [{**row, "prediction": output} for row, output in zip(ROWS, OUTPUTS)]
    for target in (".jsonl", ".csv", ".parquet"):
        texts, rows = through(path, tmp_path / f"out{target}")
        assert texts == [row["text"] for row in ROWS]
        assert rows == expected
    # And once more, out of what was written.
    texts, rows = through(tmp_path / "out.csv", tmp_path / "again.jsonl", output_column="more")
    assert texts == [row["text"] for row in ROWS]
    assert rows == [{**row, "more": row["prediction"]} for row in expected]
    with pytest.raises(ConfigError, match=r"in\..*: has a tab or a line break in 'One .* --output"):
        of_table(options(path, tmp_path / "out.tsv"), source, {})


def test_quotes_are_letters_in_tsv_and_outputs_lose_what_it_cannot_hold(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text('id\ttext\n1\t"a" 国\n2\t\n3\tc"\n', encoding="utf-8")
    texts, rows = through(path, tmp_path / "out.tsv", ["x\ty", "a\n b", '"'])
    assert texts == ['"a" 国', "", 'c"']
    assert [row["prediction"] for row in rows] == ["x y", "a b", '"']
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()[1] == '1\t"a" 国\tx y'


def test_types_stay_where_the_output_has_them(tmp_path):
    table = pa.table(
        {"text": ["a", "b", "c"], "score": pa.array([3.8, None, 1], pa.float32()), "ids": [[1]] * 3}
    ).replace_schema_metadata({"of": "someone"})
    pq.write_table(table, tmp_path / "in.parquet")
    through(tmp_path / "in.parquet", tmp_path / "out.parquet")
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.equals(table.append_column("prediction", pa.array(OUTPUTS)))
    assert written.schema.metadata == {b"of": b"someone"}
    _, rows = through(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert [row["score"] for row in rows] == [3.8, None, 1]
    _, rows = through(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert rows[0] == {"text": "a", "score": "3.8", "ids": "[1]", "prediction": OUTPUTS[0]}
    # Objects need not all have the same keys.
    path = write(tmp_path / "in.jsonl", [{"text": "a", "n": 1}, {"text": "b"}, {"text": "\r"}])
    assert through(path, tmp_path / "keys.jsonl")[1][1] == {"text": "b", "prediction": OUTPUTS[1]}
    _, rows = through(path, tmp_path / "keys.csv")
    assert [row["n"] for row in rows] == ["1", "", ""]
    assert rows[2]["text"] == "\r"


def test_rows_are_read_as_the_runs_task_reads_them(tmp_path):
    path = write(tmp_path / "in.jsonl", [{"q": " why? ", "c": "so\nit is", "question": "-"}])

    def read(settings, **more):
        documents = of_table(options(path, **more), ".jsonl", settings)
        return next(iter(documents.lines)).text

    local = {"task": {**LOCAL, "prefix": "answer: "}}
    assert read(local, inputs="q,c") == "answer: question: why? context: so\nit is"
    assert read(local, inputs="q,c", task="none") == "q: why? c: so\nit is"
    assert read({}, inputs="q") == " why? "
    with pytest.raises(
        ConfigError, match=r"in.jsonl: has no column 'context', of which inputs are"
    ):
        read(local)
    glue = {"task": {"name": "glue"}}
    assert read(glue, task="qnli", inputs="q,c") == "qnli question: why? sentence: so\nit is"
    with pytest.raises(ConfigError, match=r"--task = None: must be one of cola, .*, or none"):
        read(glue)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"inputs": "txt"}, "--inputs = 'txt': no column 'txt'; did you mean 'text'?"),
        ({"output_column": "text"}, "--output_column = 'text': is a column of"),
        ({"task": "rte"}, "--task = 'rte': must be none: the run was not fine-tuned"),
        ({"output": "out.csv.gz"}, "--output = 'out.csv.gz': must not end in .gz"),
        ({"output": "out.parquet"}, "column 'mixed' has values of several types, which Parquet"),
        ({"settings": {"task": LOCAL}, "inputs": "text"}, "--inputs = 'text': must be 2 columns"),
        (
            {"settings": {"task": LOCAL}, "inputs": "text,no"},
            "in.jsonl, line 2: has no column 'no'",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(more, message, tmp_path):
    rows = [{"text": "a", "mixed": 1, "no": "x"}, {"text": "b", "mixed": "x"}]
    path = write(tmp_path / "in.jsonl", rows)
    settings = more.pop("settings", {})
    with pytest.raises(ConfigError) as caught:
        of_table(options(path, **more), ".jsonl", settings)
    assert message in str(caught.value)


def test_broken_tables_and_what_json_cannot_hold(tmp_path):
    (tmp_path / "in.csv").write_text('id,text\n1,"a\nb"\n2\n')
    with pytest.raises(ConfigError, match=r"in.csv, line 4: has 1 columns; must have 2"):
        of_table(options(tmp_path / "in.csv"), ".csv", {})
    pq.write_table(pa.table({"text": ["a"], "raw": [b"\xff"]}), tmp_path / "in.parquet")
    with pytest.raises(ConfigError, match=r"row 1: has what JSON cannot hold .*bytes.*\.parquet"):
        of_table(options(tmp_path / "in.parquet", "out.jsonl"), ".parquet", {})
    with pytest.raises(ConfigError, match="--output = None: must be a file, for Parquet is no"):
        of_table(options(tmp_path / "in.parquet"), ".parquet", {})


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input=no.csv"], 1, "error: no.csv: No such file or directory"),
        (["--input=-", "--format=xml"], 2, "--format = 'xml': must be one of lines, tsv, csv, "),
        (["--input=-", "--format=csv"], 2, "--input = '-': must be a file where it is a table"),
        (["--input=-", "--inputs=a"], 2, "--inputs = 'a': is of tables only, not of -"),
    ],
)
def test_wrong_options(arguments, status, message, capsys):
    assert main(["--checkpoint=nowhere", *arguments]) == status
    assert message in capsys.readouterr().err


def test_a_document_with_line_breaks_is_one(pretrained, tmp_path, capsys):
    path = write(tmp_path / "in.csv", [*ROWS, {"id": "", "text": " \n"}])
    capsys.readouterr()
    assert main([f"--checkpoint={pretrained}", f"--input={path}", "--max_length=6"]) == 0
    (tmp_path / "out.csv").write_text(capsys.readouterr().out, encoding="utf-8")
    rows = [row for _, row in read_rows(str(tmp_path / "out.csv"))]
    run = spade_jax.load(pretrained)
    expected = run.generate([row["text"] for row in ROWS], max_length=6)
    assert [row.pop("prediction") for row in rows] == [*expected, ""]
    assert rows == [*ROWS, {"id": "", "text": " \n"}]


@pytest.mark.parametrize("lines", [False, True])
def test_stopped_and_started_again_it_writes_the_same(
    pretrained, tmp_path, monkeypatch, capsys, lines
):
    if lines:
        path = tmp_path / "in.txt"
        path.write_text("".join(f"number {i}\n" for i in range(5)))
    else:
        path = write(tmp_path / "in.jsonl", [{"text": f"number\n{i}"} for i in range(5)])
    whole, out = tmp_path / f"whole{path.suffix}", tmp_path / f"out{path.suffix}"
    command = [f"--checkpoint={pretrained}", f"--input={path}", "--batch_size=2"]
    command += ["--max_length=6", "--temperature=1"]
    assert main([*command, f"--output={whole}"]) == 0
    add, partial = Partial.add, tmp_path / f"{out.name}.partial"

    def add_and_stop(self, batch):
        add(self, batch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "add", add_and_stop)
        assert main([*command, f"--output={out}"]) == 130
    assert not out.exists()
    kept = partial.read_bytes()
    partial.write_bytes(kept + b'{"outputs": ["torn')
    added = []
    with monkeypatch.context() as patch:
        patch.setattr(Partial, "add", lambda self, batch: (added.append(batch), add(self, batch)))
        assert main([*command, f"--output={out}"]) == 0
    assert f"{partial}: has 2 of 5 outputs; goes on behind them" in capsys.readouterr().err
    assert [len(batch) for batch in added] == [2, 1]
    assert out.read_bytes() == whole.read_bytes()
    assert {*tmp_path.iterdir()} == {path, whole, out}
    if lines:
        # Of another command nothing is taken.
        partial.write_bytes(kept)
        assert main([*command, "--seed=1", f"--output={out}"]) == 0
        assert "was of another command or input, and begins anew" in capsys.readouterr().err
        assert len(out.read_text().splitlines()) == 5


def test_one_process_at_a_time_keeps_outputs(tmp_path):
    output = str(tmp_path / "out.csv")
    with Partial(output, {"seed": 0}) as first:
        with pytest.raises(RunError, match=r"out.csv.partial: another process is writing it"):
            Partial(output, {"seed": 0})
        assert first.batches == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.csv.partial").write_text("someone's\n")
    with pytest.raises(RunError, match=r"out.csv.partial: line 1: is damaged .*; delete it, and"):
        Partial(output, {"seed": 0})
    assert (tmp_path / "out.csv.partial").read_text() == "someone's\n"
