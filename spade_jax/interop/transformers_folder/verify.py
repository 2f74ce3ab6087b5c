"""Loads a folder in a process of its own, and computes what the run's model did."""

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spade_jax.config import RunError
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.interop.export.job import in_a_fresh_process

_SCRIPT = """\
import json, sys
import numpy, torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
folder, given, texts = sys.argv[1:4]
model, names = AutoModelForSeq2SeqLM.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True, dtype=torch.float32
)
assert not any(names.values()), f'names of parameters do not agree: {names}'
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
for line, ids in json.load(open(texts, encoding='utf-8')):
    found = tokenizer(line)['input_ids']
    assert found == ids, f'the tokenizer reads {line[:60]!r} as {found[:20]}, and not {ids[:20]}'
with numpy.load(given) as arrays:
    names = ('tokens', 'decoder_tokens', 'max_length', 'vocab_size')
    arrays = {name: torch.from_numpy(arrays[name]).long() for name in names}
tokens, length = arrays['tokens'], int(arrays['max_length'])
inputs = {'input_ids': tokens, 'attention_mask': tokens != 0}
model.eval()
with torch.no_grad():
    logits = model(**inputs, decoder_input_ids=arrays['decoder_tokens']).logits
    written = model.generate(**inputs, max_new_tokens=length, do_sample=False, num_beams=1)[:, 1:]
outputs = numpy.zeros((len(tokens), length), numpy.int32)
outputs[:, : written.shape[1]] = written.numpy()
results = {
    'logits': logits[..., : int(arrays['vocab_size'])].float().numpy(), 'outputs': outputs
}
"""


def computed(
    folder: Path, given: Path, vocabulary: Vocabulary, lines: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and greedy outputs of samples by PyTorch, which reads the folder, in float32.

    Args:
      given: an .npz file: tokens int [b, l] and decoder_tokens int [b, t], of which 0 is padding,
        max_length and vocab_size.
      lines: texts whose ids are compared with the vocabulary's.

    Returns:
      logits float32 [b, t, vocab_size] and outputs int32 [b, max_length], 0 after the end.

    Raises:
      RunError: PyTorch or Transformers is not installed; or the folder cannot be loaded, holds
        other parameters than its model has, or its tokenizer gives other ids.
    """
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            raise RunError(
                f"{folder}: cannot be compared with the run, for {library} is not installed; "
                "install spade-jax[torch], or say --no-verify"
            )
    texts = [(line, [*vocabulary.tokens(line), vocabulary.eos_id]) for line in lines]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "texts.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        arguments = [str(folder), str(given), str(path)]
        results = in_a_fresh_process(_SCRIPT, arguments, of_ours=False)
    return results["logits"], results["outputs"]
