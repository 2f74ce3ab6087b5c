"""What a model is, and how every setting is checked: frozen dataclasses that know no framework."""

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import (
    MAX_LENGTH,
    MAX_VOCABULARY,
    AttentionConfig,
    DropoutRate,
    ModelConfig,
    StackConfig,
)
from spade_jax.config.schema import (
    MAX_COUNT,
    ConfigError,
    Count,
    Range,
    RunError,
    Seed,
    check_fields,
    from_dict,
    nearest,
    require,
    require_choice,
    require_pattern,
    require_text,
    shown,
)

__all__ = [
    "MAX_COUNT",
    "MAX_LENGTH",
    "MAX_VOCABULARY",
    "AttentionConfig",
    "ConfigError",
    "Count",
    "DropoutRate",
    "MixerConfig",
    "ModelConfig",
    "Range",
    "RunError",
    "Seed",
    "StackConfig",
    "check_fields",
    "from_dict",
    "nearest",
    "require",
    "require_choice",
    "require_pattern",
    "require_text",
    "shown",
]
