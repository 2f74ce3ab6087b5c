"""Runs of the program from a pre-trained checkpoint to predictions; stopped, and started again."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from prepared_rte import CLASSES, prepare_rte

from finetune.__main__ import main
from finetune.evaluation import Evaluator
from spade_jax.config import RunError
from spade_jax.decoding.__main__ import main as decode
from spade_jax.report.__main__ import main as report
from spade_jax.runs.workdir import Records, read_metrics

HERE = Path(__file__).parent
MOMENTS = (
    "in the middle of the second evaluation",
    "between two checkpoints",
    "while a checkpoint is written",
    "while predictions are written",
    "before the results are written",
)


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *arguments, f"--workdir={workdir}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return workdir, done


def predictions(workdir, split):
    lines = (workdir / f"predictions-{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def metrics(workdir):
    timing = ("tokens_per_second", "seconds", "goodput", "lost/", "mfu")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(timing)} for line in lines]


def final_state(workdir):
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((workdir / "checkpoints" / "12" / "state").absolute())


def test_a_run_says_what_it_does_and_leaves_what_it_should(whole):
    workdir, done = whole
    assert done.stderr == ""
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints",
        "config.json",
        "facts.json",
        "loss.png",
        "metrics.jsonl",
        "metrics.png",
        "predictions-test.jsonl",
        "predictions-validation.jsonl",
        "report.html",
        "results.json",
        "samples.jsonl",
        "tensorboard",
    }
    assert "all that this model has" in " ".join(done.stdout.split())
    assert "at random" not in done.stdout
    assert "25 training examples; 0 inputs are cut off at 48 tokens, 0 targets" in done.stdout
    assert ": tokens of inputs p50 " in done.stdout
    evaluations = [line for line in metrics(workdir) if line["kind"] == "eval"]
    assert [line["step"] for line in evaluations] == [3, 6, 9, 12]
    assert set(evaluations[0]) == {"kind", "step", "loss", "accuracy", "f1", "score"}


def test_each_evaluation_shows_the_same_samples(whole):
    workdir, done = whole
    lines = [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [step for step in (3, 6, 9, 12) for _ in range(3)]
    for shown in (lines[:3], lines[-3:]):
        # Of nine examples six are evaluated in training, spread over them.
        assert [line["input"] for line in shown] == [f"which: number {i}" for i in (30, 31, 33)]
        assert [line["target"] for line in shown] == ["yes", "no", "yes"]
    assert f"  target  yes\n  model   {lines[-1]['prediction']}".rstrip() in done.stdout


def test_the_report_is_written_from_the_workdir_alone(whole, tmp_path, capsys):
    workdir = tmp_path / whole[0].name
    shutil.copytree(whole[0], workdir)
    written = (workdir / "report.html").read_text()
    for words in (
        "Fine-tuning · 22,080 parameters",
        "predictions are no label; they count as wrong",
        "Samples during training",
        "which: number 30",
        "train.batch_size",
    ):
        assert words in written
    assert written.count("<img") == 3
    (workdir / "report.html").unlink()
    assert report([str(workdir)]) == 0
    assert (workdir / "report.html").read_text() == written
    assert capsys.readouterr().out == f"{workdir / 'report.html'}\n"


def test_results_are_those_of_the_predictions(whole):
    workdir, done = whole
    results = json.loads((workdir / "results.json").read_text())
    rows = predictions(workdir, "validation")
    assert [row["input"] for row in rows] == [f"which: number {i}" for i in range(30, 39)]
    assert [row["target"] for row in rows] == ["yes", "no", "no"] * 3
    right = np.mean([row["target"] == row["prediction"] for row in rows])
    found = results["splits"]["validation"]
    assert found["examples"] == 9
    assert found["metrics"]["accuracy"] == pytest.approx(right)
    assert found["metrics"]["score"] == pytest.approx(
        (found["metrics"]["accuracy"] + found["metrics"]["f1"]) / 2
    )
    for name, (low, high) in found["intervals"].items():
        assert 0 <= low <= found["metrics"][name] <= high <= 1
    # In training "yes" is the more common one, by one example.
    assert found["baseline"] == {
        "method": "most common target",
        "metrics": {"accuracy": 1 / 3, "f1": 0.5, "score": pytest.approx(5 / 12)},
    }
    assert re.search(rf"accuracy +│ +{100 * right:.2f} │ +33.33 │", done.stdout)
    # A test set without labels has predictions, and no metrics.
    assert "test" not in results["splits"]
    assert [row["target"] for row in predictions(workdir, "test")] == [None] * 3


def test_decoding_a_table_writes_the_predictions_of_the_run(whole, tables, tmp_path):
    workdir, _ = whole
    expected = [row["prediction"] for row in predictions(workdir, "validation")]
    before = [json.loads(line) for line in (tables / "validation.jsonl").read_text().splitlines()]
    output = tmp_path / "out.jsonl"
    settings = [f"--checkpoint={workdir}", f"--output={output}"]
    assert decode([*settings, f"--input={tables}/validation.jsonl", "--batch_size=4"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [row | {"prediction": text} for row, text in zip(before, expected, strict=True)]
    # By another name of the column, and without the other one.
    path = tmp_path / "in.csv"
    path.write_text("number,words\n" + "".join(f"{i},number {i}\n" for i in range(3)))
    options = [f"--input={path}", "--inputs=words", "--output_column=even"]
    assert decode([*settings, *options]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [
        {"number": str(i), "words": f"number {i}", "even": row["prediction"]}
        for i, row in enumerate(predictions(workdir, "test"))
    ]


def test_the_parameters_come_from_the_checkpoint(pretrained, arguments, tmp_path):
    """With a rate of next to nothing, what was pre-trained is what is saved at the end."""
    still = ["--config.optimizer.learning_rate=1e-30", "--config.train.steps=1"]
    still += ["--config.optimizer.warmup_steps=0", "--config.optimizer.weight_decay=0.0"]
    assert main([*arguments, *still, f"--workdir={tmp_path}"]) == 0
    with ocp.StandardCheckpointer() as reader:
        before = reader.restore((pretrained / "checkpoints" / "2" / "state").absolute())
        after = reader.restore((tmp_path / "checkpoints" / "1" / "state").absolute())
    for (path, a), b in zip(
        jax.tree.leaves_with_path(before["params"]), jax.tree.leaves(after["params"]), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_a_finished_run_says_so_and_can_be_evaluated_again(whole, arguments, capsys):
    workdir, _ = whole
    files = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    assert main([*arguments, f"--workdir={workdir}"]) == 0
    said = capsys.readouterr().out
    assert "This run is finished, at step 12." in said
    assert "most common target" in said
    assert main([*arguments, f"--workdir={workdir}", "--eval_only"]) == 0
    assert "accuracy" in capsys.readouterr().out
    again = json.loads((workdir / "results.json").read_text())
    before = json.loads(files[workdir / "results.json"])
    assert again["step"] == before["step"]
    for split in before["splits"]:
        assert again["splits"][split]["metrics"] == before["splits"][split]["metrics"]
    for path in (workdir / "metrics.jsonl", workdir / "predictions-validation.jsonl"):
        assert path.read_bytes() == files[path]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(whole, arguments, tmp_path):
    for moment in MOMENTS:
        killed = subprocess.run(
            [sys.executable, HERE / "killed.py", moment, *arguments, f"--workdir={tmp_path}"],
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stdout, killed.stderr)
        assert not (tmp_path / "results.json").exists()
    assert main([*arguments, f"--workdir={tmp_path}"]) == 0
    one, other = final_state(tmp_path), final_state(whole[0])
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    assert metrics(tmp_path) == metrics(whole[0])
    for name in ("results.json", "predictions-validation.jsonl", "predictions-test.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()


def stop_at(monkeypatch, step, kind):
    """SIGTERM comes when a line of metrics is written."""
    write = Records.write

    def write_and_stop(self, written_kind, written_step, values):
        write(self, written_kind, written_step, values)
        if (written_kind, written_step) == (kind, step):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Records, "write", write_and_stop)


def test_a_signal_stops_it_and_it_goes_on_without_what_it_began_with(
    whole, arguments, tmp_path, monkeypatch, capsys
):
    command = [*arguments, f"--workdir={tmp_path}"]
    for step, kind, goes_on in ((5, "train", False), (12, "eval", True)):
        with monkeypatch.context() as patch:
            stop_at(patch, step, kind)
            assert main([*command, *(["--config.init_from=gone"] if goes_on else [])]) == 0
        said = capsys.readouterr().out
        # The step after the one whose line is written is on its way.
        assert f"Stopped and saved at step {min(step + 1, 12)}; the same command goes on" in said
        assert not (tmp_path / "results.json").exists()
    assert main([*command, "--config.init_from=gone"]) == 0
    assert metrics(tmp_path) == metrics(whole[0])
    assert (tmp_path / "results.json").read_bytes() == (whole[0] / "results.json").read_bytes()


def test_it_ends_early_and_with_its_best_parameters(arguments, tmp_path, monkeypatch, capsys):
    """Evaluations in training say that it gets worse and worse; what they really find is kept."""
    found = []
    evaluate = Evaluator.metrics

    def worse_and_worse(self, params, sets):
        found.append(evaluate(self, params, sets))
        return found[-1] | {"loss": float(len(found))}

    monkeypatch.setattr(Evaluator, "metrics", worse_and_worse)
    early = ["--config.train.best_metric=loss", "--config.train.patience=2"]
    every = ["--config.eval_examples=None", f"--workdir={tmp_path}"]
    assert main([*arguments, *early, *every]) == 0
    lines = [line for line in metrics(tmp_path) if line["kind"] == "eval"]
    assert [(line["step"], line["loss"]) for line in lines] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["step"] == 3
    assert results["splits"]["validation"]["metrics"] == found[0]
    assert found[0]["loss"] != found[2]["loss"]
    assert "Evaluating the parameters of step 3, the best by loss." in capsys.readouterr().out


def test_evaluation_alone_in_a_workdir_of_its_own(whole, arguments, tmp_path, capsys):
    options = [f"--config.init_from={whole[0]}", "--eval_only"]
    assert main([*arguments, *options, f"--workdir={tmp_path}"]) == 0
    best = json.loads((whole[0] / "results.json").read_text())
    assert json.loads((tmp_path / "results.json").read_text()) == best
    said = capsys.readouterr().out
    assert f"Evaluating the parameters of {whole[0]}, step {best['step']}, " in said
    assert not (tmp_path / "checkpoints").exists()


def test_where_the_best_checkpoint_is_lost_the_best_of_the_others_is_evaluated(
    whole, arguments, tmp_path, capsys
):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    (workdir / "results.json").unlink()
    # As if the fourth checkpoint back had been the best.
    lines = [line | ({"score": 2.0} if line["step"] == 3 else {}) for line in read_lines(workdir)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.rmtree(workdir / "checkpoints" / "3", ignore_errors=True)
    assert main([*arguments, f"--workdir={workdir}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Evaluating the parameters of step \d+, the (best by|newest: none)", said)
    assert "checkpoints/3: is not there)" in said
    assert json.loads((workdir / "results.json").read_text())["step"] in (6, 9, 12)


def read_lines(workdir):
    return read_metrics(workdir / "metrics.jsonl")


def test_results_stay_until_there_are_better_ones(whole, arguments, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}

    def fail(*arguments):
        raise RunError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "predict", fail)
        assert main([*arguments, "--eval_only", f"--workdir={workdir}"]) == 1
    assert {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()} == before
    # One that is damaged is said, and left.
    (workdir / "results.json").write_text("{}")
    capsys.readouterr()
    assert main([*arguments, f"--workdir={workdir}"]) == 1
    assert capsys.readouterr().err == (
        f"error: {workdir / 'results.json'}: is damaged (step is missing); delete it, and the same "
        "command evaluates again\n"
    )
    assert (workdir / "results.json").read_text() == "{}"


def test_a_finished_run_predicts_another_test_set(whole, arguments, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "number 7"}\n')
    assert main([*arguments, f"--config.task.test={other}", f"--workdir={workdir}"]) == 0
    assert [row["input"] for row in predictions(workdir, "test")] == ["which: number 7"]
    assert (workdir / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


@contextlib.contextmanager
def replaced(path, text):
    """Another content of the same length, at the same time; and then the former one again."""
    before, state = path.read_text(), path.stat()
    assert len(text) == len(before)

    def write(content):
        path.write_text(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    write(text)
    yield
    write(before)


def test_results_and_checkpoints_tell_what_the_tables_held(whole, tables):
    about = whole[0] / "checkpoints" / "12" / "position" / "about.json"
    digests = {
        f"{tables}/{split}.jsonl": hashlib.sha256(
            (tables / f"{split}.jsonl").read_bytes()
        ).hexdigest()[:16]
        for split in ("train", "validation", "test")
    }
    by_split = dict(zip(("train", "validation", "test"), digests.items()))
    assert json.loads((whole[0] / "results.json").read_text())["sources"] == {
        split: {"local_pairs": dict([item])} for split, item in by_split.items()
    }
    assert json.loads(about.read_text())["data"] == {
        f"task.{split}": dict([by_split[split]]) for split in ("train", "validation")
    }


def test_a_corrected_test_table_is_evaluated_anew(whole, arguments, tables, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    path = tables / "test.jsonl"
    with replaced(path, path.read_text().replace("number 1", "number 7")):
        assert main([*arguments, f"--workdir={workdir}"]) == 0
        expected = [f"which: number {i}" for i in (0, 7, 2)]
        assert [row["input"] for row in predictions(workdir, "test")] == expected
    assert (workdir / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_another_table_under_the_same_name_is_refused(
    whole, arguments, tables, tmp_path, capsys, split
):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    files = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    path = tables / f"{split}.jsonl"
    with replaced(path, path.read_text().replace("number 3", "number 8")):
        assert main([*arguments, f"--workdir={workdir}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: task.{split}: {path} held something else (digest ")
        assert said.endswith(
            f" when the run in {workdir} was last saved; must be as it was then, or use another "
            "workdir\n"
        )
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == files


def test_evaluation_alone_with_other_settings_is_not_taken_for_the_end(
    whole, arguments, tmp_path, capsys
):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    before = json.loads((workdir / "results.json").read_text())
    other = ["--eval_only", "--config.decoding.beams=2"]
    assert main([*arguments, *other, f"--workdir={workdir}"]) == 0
    assert json.loads((workdir / "results.json").read_text())["decoding"]["beams"] == 2
    assert main([*arguments, f"--workdir={workdir}"]) == 0
    assert json.loads((workdir / "results.json").read_text()) == before


def test_a_task_of_tfds_under_its_real_name(pretrained, tmp_path, capsys):
    prepare_rte(tmp_path / "data")
    recipe = tmp_path / "rte.py"
    recipe.write_text("from finetune.recipes import glue\nget_config = lambda: glue('rte', 4)\n")
    options = ["--config.train.batch_size=4", "--config.task.input_length=80"]
    places = [f"--config.task.data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    start = f"--config.init_from={pretrained}"
    assert main([f"--config={recipe}", start, *options, *places]) == 0
    assert "rte: 30 training examples" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for split in ("train", "validation", "test"):
        assert list(results["sources"][split]["rte"]) == [f"glue/rte/2.0.0 {split}"]
    assert list(results["splits"]) == ["validation"]
    assert results["splits"]["validation"]["examples"] == 5
    rows = predictions(tmp_path / "run", "validation")
    # TFDS says in which order.
    assert {(row["input"], row["target"]) for row in rows} == {
        (f"rte sentence1: Premise {i}. sentence2: Hypothesis {i}.", CLASSES[i % 2])
        for i in range(5)
    }
    submission = (tmp_path / "run" / "submission" / "RTE.tsv").read_text().splitlines()
    assert submission[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in submission[1:]] == ["0", "1", "2", "3"]
    assert {line.split("\t")[1] for line in submission[1:]} <= {*CLASSES}
