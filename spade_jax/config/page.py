"""A page of all settings: python -m spade_jax.config.page MODULE:CLASS … > docs/settings.md"""

import importlib
import sys
from collections.abc import Sequence

from spade_jax.config.explain import Setting, settings

_HEAD = """\
# Settings

Every setting of the programs by its name on the command line, `--config.NAME=VALUE`, with what it
can be and its default. `python -m pretrain --help-config=PATTERN` prints those whose names have the
pattern. A number in a name, as in `data.sources.0.train`, is the place in a list; NAME stands for a
name of one's own.

This page is made from the code by `make docs`.
"""


def page(classes: Sequence[str]) -> str:
    """The page in Markdown.

    Args:
      classes: such as "pretrain.config:PretrainConfig", of configurations.
    """
    parts = [_HEAD]
    for name in classes:
        module, _, attribute = name.partition(":")
        config_class = getattr(importlib.import_module(module), attribute)
        parts.append(f"## `{module.partition('.')[0]}`\n")
        parts += [_row(setting) for setting in settings(config_class)]
        parts.append("")
    return "\n".join(parts)


def _row(setting: Setting) -> str:
    default = f"default `{setting.default}`" if setting.default else "must be set"
    kinds = f", of {', '.join(f'`{kind}`' for kind in setting.kinds)}" if setting.kinds else ""
    return f"- **`{setting.name}`**{kinds}: {setting.type}; {default}.<br>{setting.words}"


if __name__ == "__main__":
    print(page(sys.argv[1:]), end="")
