"""Vocabularies: ids, digests, bytes of tokens, and the command that trains one."""

import io

import numpy as np
import pytest
from corpora import WORDS, make_documents, write_lines

from spade_jax.config import ConfigError
from spade_jax.data.config import DataConfig, DataError, SourceConfig
from spade_jax.data.masked_text import filled_passage, masked_passage, split_spans
from spade_jax.data.pipeline import train_batches
from spade_jax.data.train_vocabulary import _sentences, main, train_vocabulary
from spade_jax.data.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    """A SentencePiece model of 300 tokens."""
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    train_vocabulary(SourceConfig(kind="text", train=f"{corpus}/train*"), path, 300)
    return path


def test_bytes():
    vocabulary = load_vocabulary(DataConfig())
    assert vocabulary.size == 3 + 256 + 100
    assert vocabulary.eos_id == 1
    assert vocabulary.encode("aé") == [97 + 3, 0xC3 + 3, 0xA9 + 3]
    assert vocabulary.decode(vocabulary.encode("naïve – 雪")) == "naïve – 雪"
    expected = np.concatenate([np.zeros(3), np.ones(256), np.zeros(100)])
    np.testing.assert_array_equal(vocabulary.token_bytes, expected)
    assert vocabulary.token_bytes.dtype == np.int32


def test_sentinels_count_down_from_the_last_id():
    vocabulary = load_vocabulary(DataConfig(extra_ids=50))
    assert vocabulary.sentinel_index(vocabulary.size - 1) == 0
    assert vocabulary.sentinel_index(vocabulary.size - 50) == 49
    assert vocabulary.sentinel_index(vocabulary.size - 51) is None
    assert vocabulary.sentinel_index(vocabulary.size) is None


def test_any_bytes_decode():
    vocabulary = load_vocabulary(DataConfig())
    half = vocabulary.encode("é")[:1]
    assert vocabulary.decode([*half, 358, 100, 0, 2, 1, 100]) == "\ufffd<extra_id_0>a"
    assert isinstance(vocabulary.decode(range(2, 400)), str)


def test_sentencepiece(model):
    vocabulary = load_vocabulary(DataConfig(vocabulary=str(model)))
    assert vocabulary.size == 400
    assert vocabulary.eos_id == 1
    text = "the treaty of peace and café"
    ids = vocabulary.encode(text)
    assert len(ids) < len(text) / 2
    assert vocabulary.decode(ids) == " " + text  # SentencePiece marks the first word, too.
    assert vocabulary.token_bytes[ids].sum() == len(text.encode()) + 1
    unknown = vocabulary.encode("雪")
    assert vocabulary.decode(unknown) == " 雪"
    assert vocabulary.token_bytes[unknown].sum() == 1 + 3
    assert vocabulary.token_bytes[:3].tolist() == [0, 0, 0]
    assert vocabulary.token_bytes[-100:].sum() == 0
    assert vocabulary.decode([399, *ids]).startswith("<extra_id_0> the")


def test_digest_tells_vocabularies_apart(model, tmp_path):
    copy = tmp_path / "copy.model"
    copy.write_bytes(model.read_bytes())
    digests = {
        load_vocabulary(config).digest
        for config in (
            DataConfig(),
            DataConfig(extra_ids=200),
            DataConfig(vocabulary=str(model)),
            DataConfig(vocabulary=str(copy)),
            DataConfig(vocabulary=str(copy), extra_ids=200),
        )
    }
    assert len(digests) == 4


def test_vocabulary_files_at_fault(tmp_path):
    with pytest.raises(DataError, match=r"data.vocabulary = '.*none.model': no such file"):
        load_vocabulary(DataConfig(vocabulary=str(tmp_path / "none.model")))
    (tmp_path / "text.model").write_text("this is no model")
    with pytest.raises(DataError, match=r"text.model': is not a SentencePiece model"):
        load_vocabulary(DataConfig(vocabulary=str(tmp_path / "text.model")))


def test_special_ids_of_other_programs_are_refused(tmp_path):
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(make_documents(20, 0)),
        model_writer=written,
        vocab_size=40,
        minloglevel=2,
    )
    (tmp_path / "other.model").write_bytes(written.getvalue())
    with pytest.raises(DataError, match=r"other.model': has pad -1 and eos 2; must .*--pad_id=0"):
        load_vocabulary(DataConfig(vocabulary=str(tmp_path / "other.model")))


def test_command_trains_and_never_overwrites_silently(tmp_path, capsys):
    write_lines(tmp_path / "a.txt", make_documents(50, 4))
    command = [f"--input={tmp_path}/a.txt", f"--output={tmp_path}/a.model", "--size=290"]
    assert main(command) == 0
    assert "wrote" in capsys.readouterr().out
    first = (tmp_path / "a.model").read_bytes()
    assert main([*command[:2], "--size=300"]) == 1
    assert "a.model': exists; name another, or say --overwrite" in capsys.readouterr().err
    assert (tmp_path / "a.model").read_bytes() == first
    assert main([*command[:2], "--size=300", "--overwrite"]) == 0
    assert "replaced" in capsys.readouterr().out
    assert load_vocabulary(DataConfig(vocabulary=f"{tmp_path}/a.model")).size == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.model", "a.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size=100"], "--size = 100: must be above 259"),
        (["--size=30000"], "--size = 30000: SentencePiece cannot train it: Vocabulary size too"),
        (["--size=300", "--input=absent.txt"], "data.sources.train = 'absent.txt': no such file"),
        (
            ["--size=300", "--output=absent/a.model"],
            "'absent/a.model': cannot be written (No such file or directory)",
        ),
    ],
)
def test_command_refuses(corpus, tmp_path, capsys, arguments, message):
    defaults = [f"--input={corpus}/train0.txt", f"--output={tmp_path}/a.model"]
    assert main(defaults + arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_words_by_frequency(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the cat sat on the mat\nthe  cat ， and a  dog\n")
    command = [f"--input={tmp_path}/a.txt", f"--output={tmp_path}/a.model", "--model_type=word"]
    assert main([*command, "--size=100"]) == 0
    # Special tokens, and nine words as they stand.
    assert "a.model: 12 tokens" in capsys.readouterr().out
    vocabulary = load_vocabulary(DataConfig(vocabulary=f"{tmp_path}/a.model"))
    assert vocabulary.encode("the cat")[:2] == [3, 4]
    assert vocabulary.encode("the bird flew and") == [
        3,
        vocabulary.unk_id,
        *vocabulary.encode("and"),
    ]
    assert vocabulary.text(vocabulary.encode("the mat ， a")) == "the mat ， a"


def test_long_documents_are_learned_from(tmp_path):
    """SentencePiece itself would leave out lines above its limit."""
    (tmp_path / "a.txt").write_text(" ".join(make_documents(200, 5)))
    source = SourceConfig(kind="files", train=f"{tmp_path}/a.txt")
    train_vocabulary(source, tmp_path / "a.model", 300)
    vocabulary = load_vocabulary(DataConfig(vocabulary=f"{tmp_path}/a.model"))
    assert len(vocabulary.encode("commerce")) <= 2


@pytest.mark.parametrize("unit", ["word ", "雪", "x"])
def test_cuts_lose_nothing_but_spaces(unit):
    document = (unit * 3000 + "\n\n" + "end").encode()
    sentences = list(_sentences(document))
    assert max(map(len, sentences)) <= 2048
    assert [s.decode() for s in sentences][-1] == "end"
    joined = b"".join(sentences).decode()
    assert joined.replace(" ", "") == (unit * 3000 + "end").replace(" ", "")
    words = {word for s in sentences[:-1] for word in s.decode().split(" ")}
    assert unit != "word " or words == {"word", ""}


class TestPassages:
    """A corrupted passage as people read it."""

    vocabulary = load_vocabulary(DataConfig())

    def ids(self, *parts: str | int) -> list[int]:
        """Text and sentinel numbers as ids."""
        tokens: list[int] = []
        for part in parts:
            is_text = isinstance(part, str)
            tokens += self.vocabulary.encode(part) if is_text else [self.vocabulary.size - 1 - part]
        return tokens

    def test_masked_and_filled(self):
        inputs = [*self.ids("Four score and ", 0, " years", 1), 1]
        targets = [*self.ids(0, "seven", 1, " ago"), 1, 0, 0]
        assert masked_passage(self.vocabulary, inputs) == "Four score and […] years[…]"
        filled = filled_passage(self.vocabulary, inputs, targets)
        assert filled == "Four score and [seven] years[ ago]"

    def test_what_a_model_may_say(self):
        inputs = self.ids("a", 0, "b", 1, "c", 2)
        said = [*self.ids("x", 1, "one", 0, "nil", 1, "again", 99), 2, 0]
        assert filled_passage(self.vocabulary, inputs, said) == "a[nil]b[one]c[]"
        assert filled_passage(self.vocabulary, inputs, []) == "a[]b[]c[]"
        spans = split_spans(self.vocabulary, said)
        assert list(spans) == [1, 0, 99]
        assert spans[99] == [2, 0]

    def test_span_within_a_character(self):
        first, second = self.vocabulary.encode("é")
        inputs = [first, *self.ids(0, "!")]
        assert filled_passage(self.vocabulary, inputs, [*self.ids(0), second]) == "\ufffd[\ufffd]!"


def test_config_error_is_the_kind():
    assert issubclass(DataError, ConfigError)


def test_batches_of_sentencepiece_tokens(corpus, model):
    source = SourceConfig(kind="text", train=f"{corpus}/train*")
    config = DataConfig(sources=(source,), vocabulary=str(model), input_length=32, shuffle_buffer=8)
    vocabulary = load_vocabulary(config)
    batches = train_batches(config, 4)
    batch = next(batches)
    assert (batch["encoder_input_tokens"][:, -1] == vocabulary.eos_id).all()
    assert (batch["decoder_loss_weights"] == 1).all()
    assert batch["encoder_input_tokens"].max() == vocabulary.size - 1
    filled = filled_passage(
        vocabulary, batch["encoder_input_tokens"][0], batch["decoder_target_tokens"][0]
    )
    text = filled.replace("[", "").replace("]", "").split()[1:-1]
    assert len(text) > 5
    assert len([word for word in text if word in WORDS]) >= len(text) - 3
    state, expected = batches.get_state(), next(batches)
    batches.set_state(state)
    for name, values in next(batches).items():
        np.testing.assert_array_equal(values, expected[name])


def test_sentinels_are_read_as_they_are_written():
    vocabulary = load_vocabulary(DataConfig())
    text = "<extra_id_0>one <extra_id_99><extra_id_1> two"
    ids = vocabulary.tokens(text)
    assert ids[0] == vocabulary.size - 1
    assert ids[5:7] == [vocabulary.size - 100, vocabulary.size - 2]
    assert vocabulary.text(ids) == text
    for other in ("no <extra_id> here", "<extra_id_007>", "<extra_id_٣>", "<extra_id_-1>"):
        assert vocabulary.tokens(other) == vocabulary.encode(other)
    for none in ("<extra_id_100>", f"<extra_id_{'9' * 5000}>"):
        with pytest.raises(DataError, match=r"^<extra_id_\d{3,20}>: no such sentinel; the voc"):
            vocabulary.tokens(none)


def test_white_space_around_a_text_is_none_of_it(model):
    for name in ("bytes", str(model)):
        vocabulary = load_vocabulary(DataConfig(vocabulary=name))
        ids = vocabulary.tokens("peace  and\tcafé")
        assert vocabulary.tokens(" \u3000peace  and\tcafé\u00a0\r\n") == ids
        assert vocabulary.text(ids) == vocabulary.rewritten(vocabulary.text(ids))
    assert load_vocabulary(DataConfig()).rewritten(" a \t b\n") == "a \t b"
    assert vocabulary.rewritten("  peace \t ２ … ") == "peace 2 ..."


def test_tokens_end_with_eos_and_are_cut_off():
    vocabulary = load_vocabulary(DataConfig())
    assert vocabulary.ended([7, 8, 9], 4) == [7, 8, 9, 1]
    assert vocabulary.ended([7, 8, 9], 3) == [7, 8, 1]
    assert vocabulary.ended([], 2) == [1]
