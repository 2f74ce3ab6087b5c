"""Settings of runs that earlier versions began, as this one has them."""

from collections.abc import Mapping
from typing import Any

# What the optimiser did before parameters said themselves whether they decay: the same.
_OLD_DECAYS = [[r".*(norm|bias|global_mixer/(a_|b|d|log_dt)).*", 0.0], [".*", None]]
# What programs do is an option of theirs; once it was a setting.
_COMMANDS = ("eval_only", "print_sharding")


def renewed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their names of today.

    Mixers had settings in `model.ssm` and `model.attention.radius`, and no names of their own.
    """
    settings = {name: value for name, value in settings.items() if name not in _COMMANDS}
    model, optimizer = settings.get("model"), settings.get("optimizer")
    if isinstance(model, Mapping) and isinstance(model.get("ssm"), Mapping):
        model = dict(model)
        attention = dict(model.get("attention", {}))
        radius = attention.pop("radius", None)
        window = {"kind": "window"} | ({} if radius is None else {"radius": radius})
        s4 = {"kind": "s4", **model.pop("ssm")}
        s4.pop("structure", None)  # `init` says it.
        mixers = {"s4": s4, "window": window, "full": {"kind": "full"}}
        settings["model"] = {**model, "attention": attention, "mixers": mixers}
    if isinstance(optimizer, Mapping) and optimizer.get("weight_decays") == _OLD_DECAYS:
        settings["optimizer"] = {**optimizer, "weight_decays": [[".*", None]]}
    return settings
