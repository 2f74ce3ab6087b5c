"""Each wrong setting or file: one sentence that names it, an error status, nothing overwritten."""

import time
from pathlib import Path

import pytest

from finetune.__main__ import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--config.task.name=rtee"], "task.name = 'rtee': no such task; did you mean 'rte'?"),
        (["--config.init_from=nowhere"], "init_from = 'nowhere': holds no checkpoint; must be"),
        (["--config.init_from=''"], "init_from = '': must be a workdir, or None"),
        (["--config.init_from=None"], "init_from = None: must name the workdir of a pre-training"),
        (["--config.train.best_metric=accurracy"], "did you mean 'accuracy'?"),
        (["--config.task.target_length=1"], "task.target_length = 1: must be at least 2"),
        (["--config.decoding.beams=0"], "decoding.beams = 0: must be at least 1"),
        (["--config.decoding.beams=400"], "decoding.beams = 400: must be at most 359, the size"),
        (["--config.decoding.temperature=0.5"], "config.decoding.temperature: no such setting"),
        (["--config.task.extra_ids=10"], "is another vocabulary than that of"),
        (["--config.task.inputs=('txet',)"], "has no column 'txet', but 'text', 'label'"),
        (["--config.task.labels=('no', 'maybe')"], "line 1: column 'label': 'yes' is no label"),
        (["--config.task.train=nowhere.tsv"], "task.train = 'nowhere.tsv': no such file"),
        (["--config.task.test=nowhere.tsv"], "task.test = 'nowhere.tsv': no such file"),
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
    assert "task.name = 'ax': has no training examples; set eval_only" in capsys.readouterr().err


def test_a_checkpoint_of_another_model(arguments, tmp_path, capsys):
    model = tmp_path / "other.py"
    model.write_text(
        "import dataclasses, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('m', {str(HERE / 'miniature.py')!r})\n"
        "m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "from spade_jax.config import preset\n"
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
