"""The Long Range Arena's configurations: what each builds, and some of them in miniature."""

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.__main__ import main
from pretrain.config import PretrainConfig
from pretrain.objectives import objective_of
from spade_jax.config.file import read_config
from spade_jax.models.build import builder
from spade_jax.training.config import MeshConfig
from spade_jax.training.optimizer import look_up
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer
from spade_jax.trees import paths

FOLDER = Path(__file__).parents[2] / "configs" / "lra"
# Parameters of MEGA's encoders and classifiers, with chunks of 128 and of Path-X 4096, counted in
# the code of its authors, which has 20 tokens of ListOps and 260 of texts.
MEGA = {
    "listops": 579_770 - (20 - 16) * 80,
    "text": 959_492 - (260 - 257) * 128,
    "retrieval": 1_438_598 - (260 - 257) * 128,
    "image": 2_824_760,
    "pathfinder": 1_376_122,
    "pathx": 283_644,
}
MODELS = ("mega", "s4", "spade_mega", "spade_window")


def config_of(name):
    return read_config(str(FOLDER / f"{name}.py"), {}, PretrainConfig, "pretrain")


@functools.lru_cache
def learned(name):
    """The configuration, and the shapes of the parameters that its optimiser trains, by name."""
    config, mesh = config_of(name), make_mesh(MeshConfig())
    objective = objective_of(config)
    objective.check(config.own_model, config.data.lengths, mesh)
    trainer = make_trainer(
        builder(config.own_model), objective, config.optimizer, config.train, mesh
    )
    shapes = paths(trainer.state_shapes.params)
    return config, {name: shapes[name].shape for name in trainer.trainable}


def test_there_is_one_for_each_task_and_model():
    found = {path.stem for path in FOLDER.glob("*.py")} - {"listops_small", "majority"}
    assert found == {f"{task}_{model}" for task in MEGA for model in MODELS}


@pytest.mark.parametrize("task", MEGA)
def test_models_are_as_large_as_published_ones(task):
    sizes = {}
    for model in MODELS:
        config, shapes = learned(f"{task}_{model}")
        sizes[model] = sum(map(math.prod, shapes.values()))
        if model == "spade_mega":
            d = config.own_model.d_model
            # Beside the bottom layer's attention: S4, two norms, and what puts both together.
            beside = r"encoder/layers_0/(global_mixer|global_norm|local_norm|aggregate)/.*"
            added = {name: v for name, v in shapes.items() if re.fullmatch(beside, name)}
            assert added["encoder/layers_0/aggregate/kernel"] == (2 * d, d)
            assert added["encoder/layers_0/global_mixer/c"] == (2, d, 32, 2)
            extra = sum(map(math.prod, added.values()))
    assert sizes["mega"] == MEGA[task]
    assert sizes["spade_mega"] == MEGA[task] + extra
    assert sizes["s4"] > sizes["mega"] or task in ("text", "retrieval", "pathfinder")


@pytest.mark.parametrize(
    ("name", "rates", "decays"),
    [
        ("listops_s4", {"log_dt": 1e-2, "a_log_decay": 1e-3, "b": 1e-3, "c": 1e-2}, ("c", "d")),
        ("image_s4", {"log_dt": 1e-3, "a_log_decay": 1e-3, "c": 1e-2}, ("c", "d")),
        ("text_spade_mega", {"log_dt": 1e-3, "a_log_decay": 1e-3, "c": 1e-3}, ()),
    ],
)
def test_state_spaces_have_rates_and_decays_of_their_own(name, rates, decays):
    config, shapes = learned(name)
    groups = dict(config.optimizer.group_rates)
    rate, decay = config.optimizer.learning_rate, dict(config.optimizer.weight_decays)[".*"]
    dynamics = r".*/(a_\w+|b|log_dt)"
    own = {n: groups.get("ssm", rate) if re.fullmatch(dynamics, n) else rate for n in shapes}
    found = look_up(config.optimizer.learning_rates, own, "rates")
    decaying = look_up(config.optimizer.weight_decays, dict.fromkeys(shapes, decay), "decays")
    mixer = "local_mixer" if name.endswith("s4") else "global_mixer"
    for part, expected in rates.items():
        path = f"encoder/layers_0/{mixer}/{part}"
        assert found[path] == expected, path
        assert decaying[path] == (decay if part in decays else 0.0), path
    assert decaying["head/first/bias"] == decay
    assert found["head/first/kernel"] == rate


def smaller(**settings):
    """Options that make a run small."""
    common = {
        "model.d_model": 8,
        "model.d_ff": 8,
        "train.steps": 2,
        "train.batch_size": 4,
        "train.microbatches": 1,
        "train.eval_every": 2,
        "optimizer.warmup_steps": 1,
        "samples": 1,
    }
    return [f"--config.{name}={value}" for name, value in (common | settings).items()]


def images(folder):
    """Small images of two classes, in a folder for each."""
    rng = np.random.default_rng(0)
    for number in range(16):
        path = folder / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    return {
        "data.source": "image_folder",
        "data.name": None,
        "data.train": folder / "images",
        "data.validation": "",
        "data.validation_share": 0.3,
        "data.test": "",
        "data.test_share": 0.2,
        "data.length": 64,
        "data.classes": 2,
        "model.classes": 2,
        "model.encoder.layers": "mega",
        "model.mixers.mega.query_dim": 4,
        "model.mixers.mega.value_dim": 8,
        "model.mixers.mega.chunk_size": 32,
        "train.microbatches": 2,
    }


def pairs(folder):
    """Eight pairs of papers, in the official files."""
    names = {"train": "train", "validation": "eval", "test": "test"}
    for name in names.values():
        rows = [f'{i % 2}.0\t{name}{i}\tb\tbody of "{i}"\tbody of {name}\n' for i in range(8)]
        (folder / f"{name}.tsv").write_text("".join(rows))
    paths = {f"data.{split}": folder / f"{name}.tsv" for split, name in names.items()}
    return paths | {
        "data.length": 32,
        "data.min_count": 2,
        "model.encoder.layers": "2*s4:no_ff",
        "optimizer.learning_rates": ((r".*log_dt", 0.01), (".*", None)),
    }


@pytest.mark.parametrize(
    ("name", "make", "practice"),
    [
        ("image_mega", images, "on a held-out share of 0.3 of the training examples"),
        ("retrieval_s4", pairs, "on a validation set of its own"),
    ],
)
def test_in_miniature(name, make, practice, tmp_path, capsys):
    options = smaller(**make(tmp_path))
    workdir = tmp_path / "run"
    assert main([f"--config={FOLDER / f'{name}.py'}", f"--workdir={workdir}", *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"step 2, the best by accuracy, and the last: test accuracy [\d.]+", printed)
    assert printed.endswith(f"{practice} report: {workdir / 'report.html'}")
    assert (workdir / "checkpoints" / "2").is_dir()
