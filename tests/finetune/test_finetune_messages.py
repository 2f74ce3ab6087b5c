"""Each wrong setting or file: one sentence that names it, an error status, nothing overwritten."""

import re
import time
from pathlib import Path

import pytest
from pieces import train_pieces

from finetune.__main__ import main
from finetune.describe import describe_tables
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.inspection import look_through

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--config.task.name=rtee"], "task.name = 'rtee': no such task; did you mean 'rte'?"),
        (
            ["--config.init_from=nowhere"],
            "init_from = 'nowhere': no such folder; must be the workdir",
        ),
        (["--config.init_from=''"], "init_from = '': must be a workdir, or None"),
        (["--config.init_from=None"], "init_from = None: must name the workdir of a pre-training"),
        (["--config.train.best_metric=accurracy"], "did you mean 'accuracy'?"),
        (["--config.task.target_length=1"], "task.target_length = 1: must be at least 2"),
        (
            ["--config.task.target_length=2"],
            "task.target_length = 2: must be at least 4 for the label 'yes' and its end",
        ),
        (["--config.decoding.beams=0"], "decoding.beams = 0: must be at least 1"),
        (["--config.decoding.beams=400"], "decoding.beams = 400: must be at most 359, the size"),
        (["--config.decoding.temperature=0.5"], "config.decoding.temperature: no such setting"),
        (["--config.task.extra_ids=10"], "is another vocabulary than that of"),
        (
            ["--config.task.inputs=('txet',)"],
            "has no column 'txet', but 'text', 'label'; did you mean 'text'?",
        ),
        (["--config.task.labels=('no', 'maybe')"], "line 1: column 'label': 'yes' is no label"),
        (["--config.task.train=nowhere.tsv"], "task.train = 'nowhere.tsv': no such file"),
        (["--config.task.test=nowhere.tsv"], "task.test = 'nowhere.tsv': no such file"),
        (["--config.eval_only=True"], "config.eval_only: is called --eval_only now"),
        (["--config.print_sharding"], "config.print_sharding: is called --print_sharding now"),
        (["--config.train.eval_batches=2"], "train.eval_batches = 2: must be None: eval_examples"),
        (["--config.train.batch_size=64"], "25 training examples, but a batch of 64"),
        (["--config.new_parameters=('(',)"], "new_parameters = '(': must be a regular expr"),
        (
            ["--config.task.labels=()", "--config.task.metrics=('pearson',)"],
            "is not a finite number",
        ),
        (["--config.task.train=rows.parquet.gz"], "task.train = 'rows.parquet.gz': no such file"),
        (["--config.mesh.data=3"], "must multiply to the 1 cpu device(s) here"),
    ],
)
def test_wrong_settings(arguments, changes, message, tmp_path, capsys):
    assert main([*arguments, *changes, f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("setting", "glob", "found", "other"),
    [
        ("train", "[tv]*.jsonl", "validation.jsonl", "validation"),
        ("validation", "[tv][ra]*.jsonl", "train.jsonl", "train"),
        ("test", "[tv][ea]*.jsonl", "validation.jsonl", "validation"),
    ],
)
def test_a_table_in_two_sets(arguments, tables, setting, glob, found, other, tmp_path, capsys):
    options = [f"--config.task.{setting}={tables}/{glob}", f"--workdir={tmp_path / 'run'}"]
    assert main([*arguments, *options]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"error: task\.\w+ = '.*': .*\.jsonl is in task\.\w+ as well; a file must be in one of "
        r"them only\n",
        said,
    )
    assert f"/{found} is in task." in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_is_said_of_tables(tmp_path):
    """Rows that are left out, and rows that stand in several sets."""
    header, row = "question1\tquestion2\tis_duplicate", "Why?\tHow?\t0"
    for name, rows in (("train", ["Why?", row, "x", "y", "z"]), ("dev", [row, "a\tb\t1"])):
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    files = {"train": f"{tmp_path}/train.tsv", "validation": f"{tmp_path}/dev.tsv"}
    config = TaskConfig("qqp", vocabulary="bytes", extra_ids=1, **files)
    assert list(describe_tables(look_through(config))) == [
        "qqp, train: 4 rows have fewer columns than the header and are left out, as TFDS leaves "
        f"them out ({tmp_path}/train.tsv, line 2; {tmp_path}/train.tsv, line 4; "
        f"{tmp_path}/train.tsv, line 5 and 1 more)",
        "qqp, validation: the inputs of 1 of 2 rows are, letter by letter, those of rows of "
        "task.train as well",
    ]


def test_a_tfds_data_set_that_is_not_there_is_said_within_seconds(arguments, tmp_path, capsys):
    init_from = arguments[1]
    bare = tmp_path / "rte.py"
    bare.write_text("from finetune.recipes import glue\nget_config = lambda: glue('rte', 10)\n")
    begin = time.monotonic()
    options = [init_from, f"--config.task.data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"]
    assert main([f"--config={bare}", *options]) == 2
    assert time.monotonic() - begin < 60.0  # tfds would try again for minutes
    said = capsys.readouterr().err
    assert "task.name = 'glue/rte:2.0.0': no data set in" in said
    assert "with `tfds build glue/rte` for instance" in said


def test_a_task_without_training_examples(arguments, tmp_path, capsys):
    bare = tmp_path / "mnli.py"
    bare.write_text("from finetune.recipes import glue\nget_config = lambda: glue('mnli', 10)\n")
    options = [f"--config={bare}", "--config.task.name=ax", f"--workdir={tmp_path / 'run'}"]
    assert main([*options, arguments[1]]) == 2
    assert "task.name = 'ax': has no training examples; give --eval_only" in capsys.readouterr().err


def test_labels_that_the_vocabulary_cannot_write(arguments, tmp_path, capsys):
    text = [f"bridge {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    model = train_pieces(tmp_path / "a.model", text, 40, byte_fallback=False)
    changes = [
        "--config.init_from=None",
        f"--config.task.vocabulary={model}",
        "--config.task.labels=('<', '{')",
        f"--workdir={tmp_path / 'run'}",
    ]
    config = tmp_path / "config.py"
    config.write_text(
        "import dataclasses, runpy\n"
        "from spade_jax.models.presets import preset\n"
        f"get_miniature = runpy.run_path({str(HERE / 'miniature.py')!r})['get_config']\n"
        "def get_config():\n"
        "    config = get_miniature()\n"
        "    config.model = dataclasses.asdict(preset('tiny', vocab_size=384))\n"
        "    return config\n"
    )
    assert main([f"--config={config}", *arguments[2:], *changes]) == 2
    assert capsys.readouterr().err == (
        "error: task.labels = '<': the vocabulary writes this as '', as it does '{'; must be a "
        "word that it can write as it stands\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model(arguments, tmp_path, capsys):
    model = tmp_path / "other.py"
    model.write_text(
        "import dataclasses, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('m', {str(HERE / 'miniature.py')!r})\n"
        "m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "from spade_jax.models.presets import preset\n"
        "def get_config():\n"
        "    config = m.get_config()\n"
        "    config.model = dataclasses.asdict(preset('tiny', vocab_size=384, d_model=32))\n"
        "    return config\n"
    )
    options = [f"--config={model}", *arguments[1:], f"--workdir={tmp_path / 'run'}"]
    assert main(options) == 1
    said = capsys.readouterr().err
    assert "is of another model: parameter" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
