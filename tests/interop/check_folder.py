"""Compares a folder for Transformers with arrays, with PyTorch alone: also a script of its own.

python check_folder.py FOLDER EXPECTED.npz
"""

import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM


def load(folder, **how):
    model, names = AutoModelForSeq2SeqLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **how
    )
    assert not any(names.values()), names
    return model.eval()


def close(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max()
    assert difference <= tolerance * max(1.0, np.abs(expected).max()), difference


def check(folder, path):
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file}
    model = load(folder)
    check_forward(model, arrays)
    check_written(model, arrays)
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        reloaded = load(again)
    assert reloaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in reloaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def inputs_of(arrays):
    tokens = arrays["tokens"].long()
    return {"input_ids": tokens, "attention_mask": (tokens != 0).long()}


def check_forward(model, arrays):
    if "logits" not in arrays:
        return
    inputs, size = inputs_of(arrays), int(arrays["size"])
    decoder_tokens = arrays["decoder_tokens"].long()
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=decoder_tokens).logits
    close(logits[..., :size], arrays["logits"][..., :size], 1e-5)
    assert (logits[..., size:] < -1e30).all()
    result = model(**inputs, decoder_input_ids=decoder_tokens, labels=arrays["labels"].long())
    close(result.logits.detach(), arrays["logits"], 1e-5)
    close(result.loss.detach(), arrays["loss"], 1e-5)
    result.loss.backward()
    for name, parameter in model.named_parameters():
        expected = arrays[f"gradient {name}"]
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        size = float(expected.norm()) + 1e-3
        assert float((found - expected).norm()) <= 1e-4 * size, name


def check_written(model, arrays):
    if "greedy" not in arrays:
        return
    length, end_id = arrays["greedy"].shape[1], model.config.eos_token_id
    how = {"max_new_tokens": length, "do_sample": False, **inputs_of(arrays)}

    def written(**more):
        tokens = model.generate(**how, **more)[:, 1:]
        if "eos_token_id" in how:
            return tokens.int()
        # What comes after the end is the library's affair.
        ended = (tokens == end_id).cumsum(1) - (tokens == end_id).int() > 0
        tokens = tokens.masked_fill(ended, 0)
        return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1])).int()

    greedy = written()
    assert len(greedy.unique()) >= 8  # A model that says one thing over and over tells nothing.
    assert torch.equal(greedy, arrays["greedy"]), (greedy, arrays["greedy"])
    assert torch.equal(greedy, written(use_cache=False))
    # Without ends: the library drops one that is none of the best beams, and ours does not.
    how |= {"num_beams": 3, "length_penalty": 0.0, "eos_token_id": int(arrays["no_end"])}
    beams = written()
    assert torch.equal(beams, arrays["beams"]), (beams, arrays["beams"])
    assert not torch.equal(beams, greedy)
    torch.manual_seed(0)
    more = {"num_beams": 1, "do_sample": True, "num_return_sequences": 2}
    sampled = model.generate(**(how | more))
    assert sampled.shape[0] == 2 * len(greedy)
    assert (sampled < int(arrays["size"])).all()


torch.set_num_threads(1)

if __name__ == "__main__":
    check(*sys.argv[1:])
