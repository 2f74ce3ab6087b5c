"""Each wrong setting or file: one sentence that names it, an error status, nothing overwritten."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import main
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.lock import only_run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MINIATURE = f"--config={HERE / 'miniature.py'}"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            [f"--config={ROOT}/configs/pretrain/quickstrt.py"],
            2,
            "quickstrt.py': no such file; did you mean '{ROOT}/configs/pretrain/quickstart.py'?",
        ),
        (
            [MINIATURE, "--config.train.stepz=3"],
            2,
            "config.train.stepz: no such setting; did you mean 'steps'?",
        ),
        ([MINIATURE, "--config.train.steps=many"], 2, "config.train.steps = 'many': must be int"),
        ([MINIATURE, "--config.train.profile_steps=3"], 2, "profile_steps = 3: must be tuple"),
        ([MINIATURE, "--config.train.profile_steps=3,4,5"], 2, "must have 2 entries"),
        ([MINIATURE, "--config.train.profile_steps=4,99"], 2, "from 1 to train.steps = 24"),
        ([MINIATURE, "--config.train.steps.x=1"], 2, "config.train.steps = 24: has no setting 'x'"),
        ([MINIATURE, "--config.data.sources.7.kind=text"], 2, "config.data.sources.7: no such"),
        ([MINIATURE, "--config.model.attention.num_heads", "3"], 2, "num_heads = 3: must divide"),
        (
            [MINIATURE, "--config.model.attention.radius=9"],
            2,
            "config.model.attention.radius: is called model.mixers.window.radius now",
        ),
        (
            [MINIATURE, "--config.model.ssm.state_size=8"],
            2,
            "config.model.ssm: is called model.mixers.s4 now",
        ),
        (
            [MINIATURE, "--config.print_sharding"],
            2,
            "config.print_sharding: is called --print_sharding now",
        ),
        ([MINIATURE, "--config.model.mixers.s4.state_size=5"], 2, "model.mixers.s4.state_size = 5"),
        ([MINIATURE, "--config.model.mixers.s4.num_copies=5"], 2, "model.mixers.s4.num_copies = 5"),
        ([MINIATURE, "--config.model.mixers.window.radius=0"], 2, "model.mixers.window.radius = 0"),
        (
            [MINIATURE, "--config.train.best_metric=los"],
            2,
            "train.best_metric = 'los': must be one of loss, accuracy, bits_per_byte; did you mean",
        ),
        ([MINIATURE, "--config.samples=9"], 2, "samples = 9: must be at most train.batch_size = 8"),
    ],
)
def test_wrong_settings(arguments, status, message, tmp_path, capsys):
    assert main([*arguments, f"--workdir={tmp_path / 'run'}"]) == status
    said = capsys.readouterr().err
    assert message.format(ROOT=ROOT) in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([MINIATURE, "--confg.train.steps=3"], "--confg.train.steps: is neither --config"),
        ([], "the following arguments are required: --config"),
    ],
)
def test_another_form_of_command_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, f"--workdir={tmp_path / 'run'}"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir="], "--workdir = '': must be a path"),
        (["--workdir=run\0"], r"--workdir = 'run\x00': must be text in UTF-8 without NUL"),
        (["--workdir=run\udcff"], r"--workdir = 'run\udcff': must be text in UTF-8 without NUL"),
        (["--workdir=run", "--timeout=inf"], "--timeout = inf: must be at most 1000000.0"),
        (["--workdir=run", "--processes=" + "9" * 30], "must be at most 1048576"),
        (["--workdir=run", "--processes=two"], "--processes = 'two': must be a whole number"),
        (
            ["--workdir=run", "--coordinator=a:99999", "--processes=2", "--process=0"],
            "--coordinator = 'a:99999': must be HOST:PORT",
        ),
        (["--workdir=run", "--config.model=3"], "config.model = 3: must be ModelConfig, not int"),
    ],
)
def test_wrong_options(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([MINIATURE, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "must be a Python file (line 1: "),
        ("x = 1\n", "must define get_config()"),
    ],
)
def test_configuration_files_that_are_none(text, message, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(text)
    status = main([f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"])
    assert status == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.steps"], "config.train.steps = True: must be int, not bool"),
        (["--config.mesh.platform=tpu"], "mesh.platform = 'tpu': there is no such device here"),
        (["--config.mesh.data=3"], "must multiply to the 1 cpu device(s) here"),
        (["--config.model.vocab_size=100"], "model.vocab_size = 100: must be at least 359"),
        (["--config.optimizer.warmup_steps=24"], "optimizer.warmup_steps = 24: must be below"),
        (
            ["--config.optimizer.learning_rates=[('ssmm', 0.0), ('.*', None)]"],
            "optimizer.learning_rates = 'ssmm': matches no parameter",
        ),
    ],
)
def test_settings_that_do_not_fit_the_machine_or_the_model(arguments, message, tmp_path, capsys):
    assert main([MINIATURE, *arguments, f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main([MINIATURE, "--config.train.tracker=wandb", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "train.tracker = 'wandb': must be installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main([MINIATURE, f"--workdir={tmp_path / 'file'}"]) == 2
    assert "file': must be a directory that can be written to" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_checkpoints_that_are_a_file(tmp_path, capsys):
    (tmp_path / "checkpoints").write_text("mine")
    assert main([MINIATURE, f"--workdir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "its checkpoints must be a directory, not a file" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_fewer_documents_than_a_batch(tmp_path, capsys):
    sources = ["--config.data.sources.0.kind=text"]
    for split in ("train", "validation"):
        (tmp_path / split).write_text("The union is a strong one.\n")
        sources.append(f"--config.data.sources.0.{split}={tmp_path / split}")
    assert main([MINIATURE, *sources, f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "but a batch of 8" in said
    assert said.count("\n") == 1


@pytest.fixture(scope="module")
def finished(pretrained, pretraining, tmp_path_factory):
    """A run of two steps, in a workdir of its own, and its command line."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(pretrained, workdir)
    return workdir, [*pretraining, f"--workdir={workdir}"]


def contents(workdir):
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}


def test_a_finished_run_says_so(finished, capsys):
    workdir, arguments = finished
    metrics = (workdir / "metrics.jsonl").read_text()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    found = re.search(
        r"train: .*? documents; [\d,]+ segments of \d+ tokens; documents: .* p50", said
    )
    assert found, said
    assert "This run is finished, at step 2. For more, raise train.steps.\n" in said
    assert (workdir / "metrics.jsonl").read_text() == metrics


def test_another_configurations_workdir_is_refused(finished, capsys):
    workdir, arguments = finished
    before = contents(workdir)
    assert main([*arguments, "--config.model.d_ff=64", "--config.model.d_model=32"]) == 2
    said = capsys.readouterr().err
    assert "model.d_model was 16 and is 32; model.d_ff was 32 and is 64" in said
    assert said.count("\n") == 1
    assert contents(workdir) == before


def test_a_workdir_that_another_run_holds_is_refused(finished, capsys):
    workdir, arguments = finished
    with only_run(workdir, Checkpoints(workdir / "checkpoints", 1), print):
        before = contents(workdir)
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "is in use by another run (of " in said
        assert said.count("\n") == 1
        assert contents(workdir) == before


def test_another_vocabulary_is_refused(finished, capsys, monkeypatch):
    from pretrain import text

    class Other:
        size = 359
        digest = "f" * 64
        token_bytes = None

    workdir, arguments = finished
    before = contents(workdir)
    monkeypatch.setattr(text, "load_vocabulary", lambda config: Other)
    assert main(arguments) == 2
    assert "trained with another vocabulary" in capsys.readouterr().err
    assert contents(workdir) == before


def test_where_parameters_lie_is_printed_and_nothing_trained(tmp_path, capsys):
    assert main([MINIATURE, f"--workdir={tmp_path / 'run'}", "--print_sharding"]) == 0
    said = capsys.readouterr().out
    assert "Parameters on 1 devices: data 1 x fsdp 1 x tensor 1 x sequence 1" in said
    assert re.search(r"embedding +│ 384 x 16 +│ tensor x fsdp +│ +24.00 KiB", said), said
    assert not (tmp_path / "run").exists()


def test_other_text_under_the_same_name_is_refused(pretraining, tmp_path, capsys):
    """Of the same length: neither to learn from nor to be measured by."""
    lines = {"train": "The union is strong. " * 40, "validation": "Peace and commerce. " * 20}
    for split, line in lines.items():
        (tmp_path / f"{split}.txt").write_text(f"{line}\n")
    source = "--config.data.sources.0"
    files = [f"{source}.{split}={tmp_path}/{split}.txt" for split in lines]
    arguments = [*pretraining, f"{source}.kind=text", *files, f"--workdir={tmp_path / 'run'}"]
    arguments += ["--config.train.steps=1"]
    assert main(arguments) == 0
    for split, line in lines.items():
        path = tmp_path / f"{split}.txt"
        path.write_text(f"{line[::-1]}\n")
        capsys.readouterr()
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: data.sources.0.{split}: {path} held something else (diges")
        assert said.count("\n") == 1
        path.write_text(f"{line}\n")
