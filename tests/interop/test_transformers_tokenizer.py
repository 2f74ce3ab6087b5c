"""The tokenizer of a folder for Transformers gives the vocabulary's ids, and its texts back."""

import importlib.resources

import pytest
import torch_cases

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from spade_jax.config import ConfigError
from spade_jax.data.config import SourceConfig
from spade_jax.data.train_vocabulary import train_vocabulary
from spade_jax.interop.transformers_folder.tokenizer import tokenizer_files

TEXTS = [
    "The state of the Union is strong.",
    "  two  spaces,\nlines\t and tabs ",
    "Ünïcödé ﬁne ½ 東京 😀 naïve",
    "<extra_id_0> at the start",
    "one <extra_id_0> two <extra_id_1>",
    "<extra_id_2><extra_id_1>",
    "a<extra_id_0>b",
    "",
    "x = {y: [1.5e-3, '~']} ▁ \\",
]


@pytest.fixture(scope="module", params=["bytes", "unigram", "bpe"])
def vocabulary(request, tmp_path_factory):
    if request.param == "bytes":
        return torch_cases.vocabulary_of("bytes", 5)
    text = importlib.resources.files("spade_jax.data") / "text" / "sotu.validation.jsonl.gz"
    path = tmp_path_factory.mktemp("vocabulary") / f"{request.param}.model"
    source = SourceConfig(kind="text", train=str(text))
    train_vocabulary(source, path, 600, model_type=request.param, max_bytes=200_000)
    return torch_cases.vocabulary_of(str(path), 5)


@pytest.fixture(scope="module")
def tokenizer(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    torch_cases.case("msr").write(folder, vocabulary=vocabulary, input_length=64)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def test_ids_are_equal(vocabulary, tokenizer):
    for text in TEXTS:
        # White space around a text is the caller's, where the vocabulary is bytes.
        ids = tokenizer(text.strip())["input_ids"]
        assert ids == [*vocabulary.tokens(text), vocabulary.eos_id], text
    assert len(tokenizer) == vocabulary.size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, vocabulary.eos_id)


def test_texts_come_back(vocabulary, tokenizer):
    for text in TEXTS:
        ids = vocabulary.tokens(text)
        found = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert found.split() == vocabulary.text(ids).split() or "<extra" in text, text
    ids = [*vocabulary.tokens("some words"), vocabulary.eos_id, 0, 0]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "some words"
    sentinels = [vocabulary.size - 1 - i for i in range(vocabulary.extra_ids)]
    assert tokenizer.convert_ids_to_tokens(sentinels) == [f"<extra_id_{i}>" for i in range(5)]


def test_batches_are_padded_and_cut(tokenizer):
    batch = tokenizer(["a text", "a longer text " * 50], padding=True, truncation=True)
    assert [len(ids) for ids in batch["input_ids"]] == [64, 64]
    assert batch["input_ids"][0][-1] == 0
    assert batch["input_ids"][1][-1] == tokenizer.eos_token_id
    assert sum(batch["attention_mask"][0]) < 20


def test_other_kinds_of_models_are_refused(tmp_path):
    text = importlib.resources.files("spade_jax.data") / "text" / "sotu.validation.jsonl.gz"
    train_vocabulary(
        SourceConfig(kind="text", train=str(text)),
        tmp_path / "a.model",
        400,
        model_type="char",
        max_bytes=100_000,
    )
    with pytest.raises(ConfigError, match="must be unigram or BPE"):
        tokenizer_files(torch_cases.vocabulary_of(str(tmp_path / "a.model"), 0), None)
