"""The launch scripts: what they would do, and what they refuse."""

import sys
from pathlib import Path

import pytest

from pretrain.launch import cloud_tpu, commands, local, slurm, xpk
from spade_jax.programs import exit_status

MINIATURE = Path(__file__).with_name("miniature.py")
PROGRAM = ["--", "pretrain", f"--config={MINIATURE}", "--workdir=runs/it is", "--config.samples=0"]
SLURM = ["--nodes=2", "--gpus=8", "--time=1-00:00:00"]
TPU = ["--name=mine", "--zone=us-east5-a"]
XPK = ["--cluster=c", "--workload=w", "--tpu_type=v5litepod-256", "--image=i"]


def dry(launch, arguments, capsys):
    assert launch([*arguments, "--dry-run", *PROGRAM]) == 0
    return capsys.readouterr().out


def test_processes_on_this_machine(capsys):
    lines = dry(local.launch, ["--processes=2"], capsys).splitlines()
    assert len(lines) == 2
    for process, line in enumerate(lines):
        assert line.startswith(f"would run: {sys.executable} -u -m pretrain --config={MINIATURE}")
        assert "'--workdir=runs/it is' --config.samples=0 --coordinator=127.0.0.1:" in line
        assert line.endswith(f"--processes=2 --process={process}")


def test_a_cloud_tpu(capsys):
    said = dry(cloud_tpu.launch, [*TPU, "--project=p"], capsys)
    assert said.startswith(
        "would run: gcloud compute tpus tpu-vm ssh mine --worker=all --zone=us-east5-a --project=p "
    )
    assert "cd spade_jax && .venv/bin/python -u -m pretrain --config=" in said
    assert said.rstrip("'\n").endswith("--config.samples=0 --distributed")


def test_gke_with_xpk(capsys):
    said = dry(xpk.launch, [*XPK, "--slices=4"], capsys)
    assert said.startswith("would run: xpk workload create --cluster=c --workload=w ")
    assert "--tpu-type=v5litepod-256 --num-slices=4 --docker-image=i --max-restarts=10" in said
    assert said.rstrip("'\n").endswith("--config.samples=0 --distributed")


def test_slurm(capsys):
    said = dry(slurm.launch, [*SLURM, "--partition=long"], capsys)
    assert said.startswith("would run: sbatch --job-name=spade --nodes=2 --ntasks-per-node=8 ")
    for part in ("--gpus-per-node=8", "--time=1-00:00:00", "--signal=TERM@180", "--partition=long"):
        assert part in said
    assert "srun --kill-on-bad-exit=1 sh -c " in said


@pytest.mark.parametrize(
    ("launch", "arguments", "program", "message"),
    [
        (local.launch, ["--processes=0"], PROGRAM, "--processes = 0: must be at least 1"),
        (local.launch, ["--processes=2"], [], "program = None: must be one of pretrain, finetune"),
        (local.launch, ["--processes=2"], ["--", "train"], "program = 'train': must be one of"),
        (
            local.launch,
            ["--processes=2"],
            ["--", "pretrain", "--config=nowhere.py", "--workdir=w"],
            "--config = 'nowhere.py': no such file",
        ),
        (local.launch, ["--processes=2"], PROGRAM[:3], "--workdir = None: must be among the"),
        (
            local.launch,
            ["--processes=2"],
            [*PROGRAM, "--process=1"],
            "--process = '1': is set by the launch script",
        ),
        (slurm.launch, [*SLURM[:2], "--time=5"], PROGRAM, "--time = '5': must be [D-]HH:MM:SS"),
        (slurm.launch, [*SLURM, "--cpus=0"], PROGRAM, "--cpus = 0: must be at least 1"),
        (cloud_tpu.launch, ["--name=A", TPU[1]], PROGRAM, "--name = 'A': must be lowercase"),
        (cloud_tpu.launch, [TPU[0], "--zone=here"], PROGRAM, "--zone = 'here': must be a zone"),
        (xpk.launch, [*XPK, "--tpu_type=big"], PROGRAM, "--tpu_type = 'big': must be a type and"),
    ],
)
def test_wrong_inputs(launch, arguments, program, message, capsys):
    assert exit_status(lambda: launch([*arguments, *program]), "it") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_command_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert exit_status(lambda: commands.run(["sbatch"], dry_run=False), "it") == 1
    assert "error: sbatch: is not installed here; must be on the PATH" in capsys.readouterr().err
