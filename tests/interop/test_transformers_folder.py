"""A folder for Transformers: dtypes, lengths, its card, and how it is compared with the run."""

import dataclasses

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import check_folder
import numpy as np
import torch
import torch_cases

from spade_jax.config import ConfigError, RunError
from spade_jax.interop.transformers_folder import check, computed
from spade_jax.mixers import S4, Window


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the msr case, in bfloat16."""
    folder = tmp_path_factory.mktemp("bfloat16")
    card = {
        "license": "apache-2.0",
        "step": 70,
        "data": ["some texts"],
        "metrics": {"rouge2": 12.5},
        "task": "summaries",
    }
    torch_cases.case("msr").write(folder, dtype="bfloat16", card=card)
    return folder


def test_state_spaces_stay_float32_in_bfloat16(folder):
    model = check_folder.load(folder, dtype=torch.bfloat16)
    kept = {name for name, _ in model.named_parameters() if ".ssm_" in name}
    assert len(kept) == 7
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if name in kept else torch.bfloat16), name
    case = torch_cases.case("msr")
    inputs = {
        "input_ids": torch.from_numpy(case.tokens).long(),
        "attention_mask": torch.from_numpy(case.tokens != 0),
        "decoder_input_ids": torch.from_numpy(case.decoder_tokens).long(),
    }
    with torch.no_grad():
        half = model(**inputs).logits
        exact = check_folder.load(folder, dtype=torch.float32)(**inputs).logits
        # State spaces that somebody casts as well still compute.
        cast = model.to(torch.bfloat16)(**inputs).logits
    size = torch_cases.VOCABULARY.size
    exact = exact[..., :size]
    for logits in (half, cast):
        assert logits.dtype == torch.float32
        difference = (logits[..., :size] - exact).norm() / exact.norm()
        assert 0 < difference < 0.05


def test_longer_inputs_than_any_before_and_empty_ones(folder):
    """Padding changes nothing, however much there is; a row of nothing but padding is no NaN."""
    model = check_folder.load(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 259, (1, 700), generator=generator)
    decoder_tokens = torch.zeros((1, 1), dtype=torch.long)
    padded = torch.nn.functional.pad(tokens, (0, 300))
    with torch.no_grad():
        plain = model(input_ids=tokens, decoder_input_ids=decoder_tokens).logits
        longer = model(
            input_ids=torch.cat([padded, torch.zeros_like(padded)]),
            attention_mask=torch.cat([padded != 0, torch.zeros_like(padded, dtype=torch.bool)]),
            decoder_input_ids=decoder_tokens.repeat(2, 1),
        ).logits
    torch.testing.assert_close(longer[:1], plain, rtol=1e-4, atol=1e-4)
    assert longer.isfinite().all()


def test_the_decoder_says_how_many_positions_it_has(folder):
    model = check_folder.load(folder)
    tokens = torch.ones((1, 31), dtype=torch.long)
    with pytest.raises(ValueError, match="31 tokens: the model takes at most 30"):
        model(input_ids=tokens, decoder_input_ids=tokens)
    assert model.generation_config.max_new_tokens == 30


def test_the_card_has_what_is_known(folder):
    card = (folder / "README.md").read_text()
    assert 'license: "apache-2.0"' in card
    assert '"type": "rouge2", "value": 12.5' in card
    assert "- steps: 70" in card
    assert "some texts" in card


def given(folder, case):
    case.save(folder / "given.npz", max_length=np.asarray(5), vocab_size=np.asarray(263))
    return folder / "given.npz"


def test_a_fresh_process_compares(tmp_path):
    case = torch_cases.case("msr")
    case.write(tmp_path)
    lines = ["A <extra_id_3> line", "another, é"]
    path = given(tmp_path, case)
    logits, outputs = computed(tmp_path, path, torch_cases.VOCABULARY, lines)
    assert logits.shape == (3, 11, 263)
    np.testing.assert_array_equal(outputs, case.written()[:, :5])
    with pytest.raises(RunError, match="the tokenizer reads 'x <extra_id_0>' as"):
        computed(tmp_path, path, torch_cases.vocabulary_of("bytes", 3), ["x <extra_id_0>"])


def test_mixers_that_pytorch_does_not_know_are_named():
    class Other(Window):
        """Some other mixer."""

    config = torch_cases.CASES["t5"]
    check(config)
    mixers = {**config.mixers, "window": Other(3)}
    with pytest.raises(ConfigError, match=r"model\.mixers\.window.* must be s4, window or full"):
        check(dataclasses.replace(config, mixers=mixers))
    mixers = {**config.mixers, "s4": S4(output="glu")}
    with pytest.raises(ConfigError, match=r"model\.mixers\.s4\.output = 'glu': must be plain"):
        check(dataclasses.replace(config, mixers=mixers))
    with pytest.raises(ConfigError, match=r"model\.feed_forward = 'silu': must be gated-gelu or"):
        check(dataclasses.replace(config, feed_forward="silu"))
