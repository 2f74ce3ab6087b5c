import dataclasses
import json

import pytest
from stand_in import StandIn

from spade_jax.config import ConfigError, ModelConfig
from spade_jax.models.presets import preset
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.ops.attention.dropout import NUMBERS_VERSION
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.identity import check_same_data, check_same_run
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer


@dataclasses.dataclass(frozen=True)
class Config:
    train: TrainConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig


CONFIG = Config(
    TrainConfig(steps=12, batch_size=8, log_every=1, seed=1),
    OptimizerConfig(warmup_steps=2),
    MeshConfig(),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Checkpoints of a run with CONFIG and vocabulary "abc"."""
    directory = tmp_path_factory.mktemp("stored") / "checkpoints"
    trainer = make_trainer(
        StandIn, Seq2Seq(), CONFIG.optimizer, CONFIG.train, make_mesh(MeshConfig())
    )
    checkpoints = Checkpoints(directory, keep=1)
    about = {"settings": dataclasses.asdict(CONFIG), "vocabulary": "abc"}
    checkpoints.save(1, trainer.init(), bytes, about)
    checkpoints.wait()
    checkpoints.close()
    return Checkpoints(directory, keep=1)


def changed(**changes):
    sections = {}
    for name, value in changes.items():
        section, setting = name.split("__")
        sections.setdefault(section, {})[setting] = value
    return dataclasses.replace(
        CONFIG,
        **{name: dataclasses.replace(getattr(CONFIG, name), **of) for name, of in sections.items()},
    )


def test_the_same_run_may_differ_in_what_no_update_sees(stored):
    check_same_run(stored, CONFIG, "abc")
    check_same_run(stored, changed(train__log_every=5, mesh__fsdp=8), "abc")
    check_same_run(stored, changed(train__profile_steps=(3, 5)), "abc")


def test_how_a_model_is_computed_may_change(tmp_path):
    """Whether layers are scanned, what is kept for the gradient, which implementation runs."""
    model = preset("tiny", vocab_size=64)

    @dataclasses.dataclass(frozen=True)
    class Settings:
        model: ModelConfig
        train: TrainConfig = CONFIG.train

    checkpoints = Stored(tmp_path, dataclasses.asdict(Settings(model)))
    attention = dataclasses.replace(model.attention, implementation="xla")
    s4 = dataclasses.replace(model.mixers["s4"], implementation="xla", chunk_length=32)
    same = dataclasses.replace(
        model,
        scan_layers=True,
        remat="full",
        attention=attention,
        mixers={**model.mixers, "s4": s4},
    )
    check_same_run(checkpoints, Settings(same), "abc")
    with pytest.raises(ConfigError, match=r"model\.dropout_rate was 0.0 and is 0.5"):
        check_same_run(checkpoints, Settings(dataclasses.replace(same, dropout_rate=0.5)), "abc")


def test_what_was_no_setting_then_had_its_default(tmp_path):
    settings = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    del settings["train"]["patience"], settings["optimizer"]["eps"]
    check_same_run(Stored(tmp_path, settings), CONFIG, "abc")
    with pytest.raises(ConfigError, match=r"optimizer.eps was 1e-08 and is 1e-06"):
        check_same_run(Stored(tmp_path, settings), changed(optimizer__eps=1e-6), "abc")
    settings["optimizer"]["epsilon"] = 1e-6
    with pytest.raises(ConfigError, match=r"config.optimizer.epsilon: no such setting"):
        check_same_run(Stored(tmp_path, settings), CONFIG, "abc")


def test_another_configuration_is_refused_with_what_differs(stored):
    with pytest.raises(ConfigError) as caught:
        check_same_run(
            stored, changed(train__seed=2, optimizer__schedule="linear", train__steps=13), "abc"
        )
    assert "train.steps was 12 and is 13; train.seed was 1 and is 2; optimizer.schedule" in str(
        caught.value
    )
    with pytest.raises(ConfigError, match=r"optimizer.learning_rates.0.0 was '\.\*' and is '\.\+'"):
        check_same_run(stored, changed(optimizer__learning_rates=((".+", None),)), "abc")


def test_another_vocabulary_is_refused(stored):
    with pytest.raises(ConfigError, match=r"another vocabulary \(digest abc\) .* \(digest xyz\)"):
        check_same_run(stored, CONFIG, "xyz")


class Stored:
    """Checkpoints, as far as they are asked what they are of."""

    newest = 3

    def __init__(self, directory, settings):
        self.directory, self._settings = directory, settings

    def about(self):
        return {"settings": self._settings, "vocabulary": "abc"}


def test_steps_may_grow_where_the_schedule_does_not_look_at_them(tmp_path):
    stored = Stored(tmp_path, dataclasses.asdict(changed(optimizer__schedule="constant")))
    check_same_run(stored, changed(optimizer__schedule="constant", train__steps=99), "abc")
    by_share = changed(optimizer__schedule="constant", optimizer__warmup_share=0.5)
    of_share = Stored(tmp_path, dataclasses.asdict(by_share))
    longer = dataclasses.replace(by_share.train, steps=99)
    with pytest.raises(ConfigError, match=r"train.steps was 12 and is 99"):
        check_same_run(of_share, dataclasses.replace(by_share, train=longer), "abc")
    with pytest.raises(ConfigError, match=r"optimizer.schedule was 'constant' and is 'linear'"):
        check_same_run(stored, changed(optimizer__schedule="linear"), "abc")


@dataclasses.dataclass(frozen=True)
class Model:
    dropout_rate: float

    def without_unused_mixers(self):
        return self


@dataclasses.dataclass(frozen=True)
class ConfigWithModel:
    train: TrainConfig
    model: Model


@pytest.mark.parametrize("began_with", [None, 1, NUMBERS_VERSION + 1])
def test_a_run_that_drops_does_not_go_on_with_other_numbers(tmp_path, began_with):
    config = ConfigWithModel(CONFIG.train, Model(0.1))
    stored = Stored(tmp_path, dataclasses.asdict(config))
    about = stored.about() | ({} if began_with is None else {"dropout_numbers": began_with})
    stored.about = lambda: about
    refused = (
        rf"its run drops attention's probabilities \(model.dropout_rate = 0.1\) by random numbers "
        rf"of version {began_with or 1}, and .* of version {NUMBERS_VERSION}; go on with the"
    )
    with pytest.raises(ConfigError, match=refused):
        check_same_run(stored, config, "abc")
    # It is only evaluated; or is at its end.
    check_same_run(stored, config, "abc", trains=False)
    stored.newest = config.train.steps
    check_same_run(stored, config, "abc")


def test_a_run_goes_on_with_the_numbers_that_it_began_with(tmp_path):
    config = ConfigWithModel(CONFIG.train, Model(0.1))
    stored = Stored(tmp_path, dataclasses.asdict(config))
    stored.about = lambda: {
        "settings": dataclasses.asdict(config),
        "vocabulary": "abc",
        "dropout_numbers": NUMBERS_VERSION,
    }
    check_same_run(stored, config, "abc")
    # Without dropout there are none.
    config = ConfigWithModel(CONFIG.train, Model(0.0))
    check_same_run(Stored(tmp_path, dataclasses.asdict(config)), config, "abc")


class Saved:
    """What is compared of checkpoints: those of a run on some data."""

    def __init__(self, workdir, **about):
        self.newest = 3
        self.directory = workdir / "checkpoints"
        self._about = about

    def about(self):
        return self._about


DATA = {"task.train": {"a.csv": "1", "b.csv": "2"}, "task.validation": {"v.csv": "3"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task.validation": {"v.csv": "4"}},
            r"task.validation: v.csv held something else \(digest 3; now 4\) when the run in .*run "
            "was last saved; must be as it was then, or use another workdir",
        ),
        ({"task.train": {"a.csv": "0", "b.csv": "2"}}, r"task.train: a.csv held something else"),
        ({"task.train": {"a.csv": "1"}}, "task.train: b.csv was there when"),
        ({"task.train": DATA["task.train"] | {"c.csv": "5"}}, "c.csv was not there when the run"),
        ({"data.more": {"d": "5"}}, "data.more: d was not there when"),
    ],
)
def test_other_data_is_refused_with_the_file_that_changed(tmp_path, changes, message):
    saved = Saved(tmp_path / "run", data=DATA)
    assert check_same_data(saved, json.loads(json.dumps(DATA))) is None
    with pytest.raises(ConfigError, match=message):
        check_same_data(saved, DATA | changes)


def test_checkpoints_that_do_not_tell_their_data_go_on_and_it_is_said(tmp_path):
    said = check_same_data(Saved(tmp_path, settings={}), DATA)
    assert said.startswith("The checkpoint of step 3 does not tell what its data held")
    fresh = Saved(tmp_path)
    fresh.newest = None
    assert check_same_data(fresh, DATA) is None
