"""A text is the same tokens wherever a model meets it: in training, evaluation and decoding."""

import json
import textwrap

import pytest
from pieces import train_pieces

from spade_jax.data.config import SourceConfig
from spade_jax.data.sources import iterate_documents
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.text_to_text.training_batches import train_pairs
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.decoding.lines import line_tokens, read_lines

TYPED = (
    "The <extra_id_0> crossed the <extra_id_1> at noon.",
    "<extra_id_0> ferry <extra_id_1> bay",
    "  white\u00a0space \t around, and  within\u3000",
    "<extra_id_007> <extra_id> <extra_id_99>",
    "星２つ ½ cup… e\u0301 한국 👍🏽 \u200b \ufeff",
)


@pytest.mark.parametrize("kind", ["bytes", "fallback", "lacking"])
def test_training_evaluation_and_decoding_read_a_text_alike(tmp_path, kind):
    shipped = next(iterate_documents(SourceConfig(), "validation")).decode()
    prose = textwrap.wrap(shipped[:10_000], 90)
    lines = [*TYPED, *prose[:40]]
    vocabulary = kind
    if kind != "bytes":
        model = tmp_path / "a.model"
        train_pieces(model, prose, 400, byte_fallback=kind == "fallback")
        vocabulary = str(model)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": a, "fill": a}) + "\n" for a in lines))
    config = TaskConfig(
        train=str(path),
        validation=str(path),
        inputs=("text",),
        target="fill",
        input_length=128,
        target_length=100,
        vocabulary=vocabulary,
        extra_ids=100,
    )
    batch = next(train_pairs(config, len(lines), [len(lines)]))
    (held_out,) = evaluation_sets(config, "validation")
    (tmp_path / "lines.txt").write_bytes("\r\n".join(lines).encode())
    with (tmp_path / "lines.txt").open("rb") as file:
        read = [line_tokens(line, load_vocabulary(config)) for line in read_lines(file, "")]

    def rows(ids, length):
        return {tuple([*row, *[0] * (length - len(row))]) for row in ids}

    decoded = [load_vocabulary(config).ended(ids, 128) for ids in read]
    assert [ids.tolist() for ids in held_out.inputs] == decoded
    assert rows(batch["encoder_input_tokens"].tolist(), 128) == rows(decoded, 128)
    assert rows(batch["decoder_target_tokens"].tolist(), 100) == rows(
        [ids.tolist() for ids in held_out.targets], 100
    )
    size = load_vocabulary(config).size
    assert size - 1 in held_out.inputs[0]
    assert size - 2 in held_out.inputs[0]
    assert held_out.targets[1][0] == size - 1
