"""A folder for Transformers, in plain PyTorch: AutoModelForSeq2SeqLM and AutoTokenizer read it.

config.json, generation_config.json     `settings`
model.safetensors                       `tensors`
*_spade.py                              the model in PyTorch, copied as it is from `files`
tokenizer.json or tokenizer_config.json `tokenizer`
README.md                               `card`
"""

from spade_jax.interop.transformers_folder.folder import check, write
from spade_jax.interop.transformers_folder.verify import computed

__all__ = ["check", "computed", "write"]
