"""The task of a fine-tuning run: which tasks there are, and every setting that cannot be."""

import dataclasses
import subprocess
import sys

import pytest

from spade_jax.config import ConfigError, from_dict
from spade_jax.data.task_config import LOCAL, TaskConfig
from spade_jax.data.text_to_text.formats import RowError
from spade_jax.data.text_to_text.registry import MIXTURES, TASKS

MINE = {"train": "a.tsv", "inputs": ("text",), "target": "answer"}
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def only_task(**settings):
    (task,) = TaskConfig(**{**MINE, **settings}).tasks
    return task


@pytest.mark.parametrize("name", TASKS)
def test_every_task_needs_no_other_setting(name):
    config = TaskConfig(name=name)
    assert config.tasks == (TASKS[name],)
    assert not config.local


def test_the_mixture_is_all_of_glue_in_order():
    tasks = TaskConfig(name="glue").tasks
    assert " ".join(t.name for t in tasks) == "cola sst2 mrpc qqp stsb mnli qnli rte wnli"
    assert tasks == tuple(TASKS[name] for name in MIXTURES["glue"])


def test_patterns_are_separated_by_commas_or_in_a_tuple():
    config = TaskConfig(
        name="mnli",
        train=" a.tsv ,, b*.tsv,",
        validation=("matched, odd.tsv", " ", "mismatched.tsv "),
    )
    assert config.patterns("train") == ("a.tsv", "b*.tsv")
    assert config.patterns("validation") == ("matched, odd.tsv", "mismatched.tsv")
    assert config.patterns("test") == ()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_table_makes_a_task_local(split):
    assert TaskConfig(name="rte", **{split: "a.tsv"}).local
    assert not TaskConfig(name="rte", **{split: " , "}).local
    without = {key: value for key, value in MINE.items() if key != "train"}
    assert TaskConfig(**without, **{split: ("a.tsv",)}).local


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rt", r"^task\.name = 'rt': no such task; did you mean 'rte'\?$"),
        ("cnn_daily_mail", r"'cnn_daily_mail': no such task; did you mean 'cnn_dailymail'\?$"),
        ("local_pair", r"did you mean 'local_pairs'\?$"),
        ("GLUE", r"^task\.name = 'GLUE': no such task; known: arxiv, .*, glue, .*, wnli$"),
        ("", r"^task\.name = '': no such task; known: "),
    ],
)
def test_an_unknown_task(name, message):
    with pytest.raises(ConfigError, match=message):
        TaskConfig(name=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ""}, r'^task\.train = \'\': must name a table for task "local_pairs"$'),
        ({"train": (" ",)}, r"^task\.train = \(' ',\): must name a table"),
        ({"inputs": ()}, r"^task\.inputs = \(\): must name a column of the tables$"),
        ({"target": ""}, r"^task\.target = '': must name a column of the tables$"),
        (
            {"labels": ("yes",)},
            r"^task\.labels = \('yes',\): must be at least two different words, or none$",
        ),
        ({"labels": ("yes", "no", "yes")}, r"^task\.labels = .*: must be at least two different"),
        ({"metrics": ("rouge",)}, r"^task\.metrics = 'rouge': is no metric; did you mean 'rouge"),
        ({"metrics": ("f1",)}, r"^task\.labels = \(\): must be two different words for metric f1"),
        (
            {"metrics": ("f1",), "labels": ("a", "b", "c")},
            r"^task\.labels = \('a', 'b', 'c'\): must be two different words for metric f1",
        ),
        ({"metrics": ("matthews",)}, r"^task\.labels = \(\): must be the words .* matthews$"),
    ],
)
def test_local_pairs_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        TaskConfig(**{**MINE, **changes})


def test_the_default_task_is_local_pairs_and_needs_tables():
    with pytest.raises(ConfigError, match=r"^task\.train = '': must name a table for task"):
        TaskConfig()


@pytest.mark.parametrize("name", ["rte", "cnn_dailymail", "glue", "sotu_year"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("inputs", ("text",)),
        ("target", "answer"),
        ("prefix", "say: "),
        ("labels", ("no", "yes")),
        ("metrics", ("accuracy",)),
    ],
)
def test_settings_of_local_pairs_are_of_no_other_task(name, setting, value):
    message = rf"^task\.{setting} = .*: is of task \"local_pairs\" only; task '{name}' has its own$"
    with pytest.raises(ConfigError, match=message):
        TaskConfig(name=name, train="a.tsv", **{setting: value})


@pytest.mark.parametrize(
    ("setting", "least"),
    [("input_length", 2), ("target_length", 2), ("shuffle_buffer", 1), ("seed", 0)],
)
@pytest.mark.parametrize("settings", [MINE, {"name": "rte"}])
def test_least_numbers(settings, setting, least):
    assert getattr(TaskConfig(**settings, **{setting: least}), setting) == least
    message = rf"^task\.{setting} = {least - 1}: must be at least {least}$"
    with pytest.raises(ConfigError, match=message):
        TaskConfig(**settings, **{setting: least - 1})


def test_a_header_names_each_column_once():
    header = ("source", "label", "star", "sentence")
    assert TaskConfig(name="cola", header=header).header == header
    with pytest.raises(ConfigError, match=r"^task\.header = .*: must name each column once$"):
        TaskConfig(name="cola", header=("_", "label", "_", "sentence"))


def test_metrics_are_accuracy_with_labels_and_rouge_without():
    assert only_task(labels=("no", "yes")).metrics == ("accuracy",)
    assert only_task().metrics == ROUGE
    chosen = ("sequence_accuracy", "rougeL")
    assert only_task(metrics=chosen).metrics == chosen
    assert only_task(metrics=("f1", "matthews"), labels=("no", "yes")).metrics == ("f1", "matthews")


def test_one_input_stands_behind_the_prefix():
    task = only_task(prefix="translate: ")
    assert (task.name, task.prefix, task.tfds, task.labels) == (LOCAL, "translate: ", None, ())
    assert task.pair({"text": "Hund", "answer": "dog", "id": 1}) == ("translate: Hund", "dog")
    assert only_task().pair({"text": "Hund", "answer": 3.0}) == ("Hund", "3")


def test_several_inputs_are_headed_by_their_names():
    row = {"question": "Who?", "context": "The cat sat.", "answer": "the cat"}
    inputs = ("question", "context")
    written = "question: Who? context: The cat sat."
    assert only_task(inputs=inputs).pair(row) == (written, "the cat")
    assert only_task(inputs=inputs, prefix="answer ").pair(row)[0] == f"answer {written}"
    assert only_task(inputs=inputs[::-1]).pair(row)[0] == "context: The cat sat. question: Who?"


def test_labels_are_words_or_their_numbers():
    task = only_task(labels=("no", "yes"))
    assert task.labels == ("no", "yes")
    for value, word in (("no", "no"), (0, "no"), ("1", "yes"), (1.0, "yes")):
        assert task.pair({"text": "?", "answer": value}) == ("?", word)
    message = "^column 'answer': 'maybe' is no label; must be one of 'no', 'yes'$"
    with pytest.raises(RowError, match=message):
        task.pair({"text": "?", "answer": "maybe"})


def test_test_sets_may_lack_the_target():
    assert only_task().pair({"text": "Hund"}, labelled=False) == ("Hund", "")
    with pytest.raises(RowError, match="has no column 'answer', but 'text'"):
        only_task().pair({"text": "Hund"})


def test_settings_of_the_command_line_have_types():
    """A string is one name, and not its letters."""
    assert from_dict(TaskConfig, {**MINE, "inputs": ["text"]}, "task") == TaskConfig(**MINE)
    assert from_dict(TaskConfig, {**MINE, "inputs": "text"}, "task") == TaskConfig(**MINE)
    with pytest.raises(ConfigError, match=r"^task\.input: no such setting; did you mean 'inputs'"):
        from_dict(TaskConfig, {**MINE, "input": ("text",)}, "task")


def test_equal_tasks_are_equal_and_serve_as_keys():
    config = TaskConfig(**MINE)
    assert {config: 1}[TaskConfig(**MINE)] == 1
    assert dataclasses.replace(config, seed=1) != config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_importing_the_module_loads_no_framework():
    script = (
        "import sys; from spade_jax.data.task_config import TaskConfig; TaskConfig('glue').tasks;"
        "print({'tensorflow', 'seqio', 'tensorflow_datasets', 'jax', 'sklearn', 'pyarrow'}"
        " & set(sys.modules))"
    )
    run = [sys.executable, "-W", "error", "-c", script]
    assert subprocess.check_output(run, text=True) == "set()\n"
