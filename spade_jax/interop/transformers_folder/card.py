"""README.md of the folder, as model hubs read it."""

import json
from collections.abc import Mapping
from typing import Any

_INTRODUCTION = """\
An encoder-decoder of SPADE layers (arXiv 2212.08136): a state space model for what is far,
attention to a window for what is near, linear in the length. Trained with spade_jax; the model in
PyTorch is in this folder, and needs Transformers 4.57 or newer."""

_USE = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(["a text"], padding=True, return_tensors="pt")
outputs = model.generate(**inputs)
print(tokenizer.batch_decode(outputs, skip_special_tokens=True))
```
"""

_NOTES = """\
- Use float32 or bfloat16, not float16. State spaces stay float32 in both.
- Ids that the tokenizer does not have are never written: their logits are the lowest number where
  no labels are given. Labels of -100 do not count in the loss.
- Beam search in Transformers divides by another function of the length than spade_jax, and takes an
  end into account only where it is one of the best `num_beams` continuations, which spade_jax does
  among twice as many. With `length_penalty=0` both are equal up to that.
- Static caches and models in pieces over several devices have not been tried.
"""


def model_card(card: Mapping[str, Any]) -> str:
    """The text of README.md; what `card` does not say is left out.

    Args:
      card: of name, license, base_model, language and pipeline_tag each a text; data, a list of
        texts; note, a sentence; step, a number; metrics, numbers by name; task, what they are of;
        settings, what the model was trained with.
    """
    name = card.get("name") or "SPADE"
    header: dict[str, Any] = {
        key: card[key] for key in ("license", "base_model", "language") if card.get(key)
    }
    header |= {
        "library_name": "transformers",
        "pipeline_tag": card.get("pipeline_tag") or "text2text-generation",
        "tags": ["spade", "state-space", "long-document", "custom_code"],
    }
    metrics = {key: float(value) for key, value in (card.get("metrics") or {}).items()}
    task = card.get("task") or "text-to-text"
    if metrics:
        header["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": header["pipeline_tag"], "name": task},
                        "dataset": {"type": task, "name": task},
                        "metrics": [
                            {"type": key, "value": value, "name": key}
                            for key, value in metrics.items()
                        ],
                    }
                ],
            }
        ]
    # JSON is YAML.
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items())
    parts = [
        f"---\n{front}\n---",
        f"# {name}",
        _INTRODUCTION,
        "## Use",
        _USE.rstrip(),
        _NOTES.rstrip(),
    ]
    training = [f"- data: {', '.join(card['data'])}"] if card.get("data") else []
    if card.get("step") is not None:
        training.append(f"- steps: {card['step']}")
    training += [f"- {key}: {value:.6g}" for key, value in metrics.items()]
    if training:
        parts += ["## Training", "\n".join(training)]
    if card.get("note"):
        parts.insert(3, card["note"])
    if card.get("settings"):
        text = json.dumps(card["settings"], indent=1, default=str)
        parts += ["## Settings", f"```json\n{text}\n```"]
    return "\n\n".join(parts) + "\n"
