"""Names that settings had before, and those of the original LoRe, with what each is called now.

They hold at the edge (command line, ``load_config``, ``replace``, ``from_dict``); nothing inside reads them.
"""

from __future__ import annotations

from typing import Any

from lore_datasets.errors import ConfigError, shown

__all__ = ["INVERTED", "SETTINGS", "renamed", "setting_name"]

SETTINGS: dict[str, str] = {
    "train.total_frames": "train.steps",
    "train.use_llm": "gate.enabled",
    "model.beta_max": "gate.beta_max",
    "model.delta_target": "gate.delta_target",
    "model.uncertainty_threshold": "gate.uncertainty_threshold",
    "gate.anneal_frames": "gate.anneal_steps",
    "model.enable_synthetic_replay": "synthetic.enabled",
    "train.synthetic_ratio_max": "synthetic.ratio_max",
    "train.synthetic_execution_prob": "synthetic.execution_prob",
    "train.synthetic_weight_decay": "synthetic.weight_decay",
    "model.enable_hierarchical_options": "options.enabled",
    "model.max_options": "options.max_options",
    "train.max_options": "options.max_options",
    "train.option_generation_interval": "options.generation_interval",
    "train.skill_confidence_threshold": "options.confidence_threshold",
    "train.llm_model": "advice.llm_model",
    "train.llm_timeout_s": "advice.llm_timeout_s",
    "train.llm_cache_size": "advice.cache_size",
    "advice.only_informative": "advice.accept_uninformative",
}
"""``section.name`` as it was -> ``section.name`` as it is."""

INVERTED = frozenset({"advice.only_informative"})
"""Old names whose True is the new one's False."""

_GONE = {"gate.imagine": False, "gate.learn_weights": False, "gate.hard_cap": 0.0}
"""Settings that are no more, and the value with which a run goes on as it was."""

_BARE = {old.partition(".")[2]: old for old in SETTINGS}


def setting_name(name: str) -> tuple[str, bool]:
    """(today's name of a setting, True where its value is inverted); other names come back as they are.

    ``name`` is ``section.name``, or an old name without its section.
    """
    old = name if "." in name else _BARE.get(name, name)
    return SETTINGS.get(old, name), old in INVERTED


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """A nested dict of settings (``config.json`` of any age) under today's names; ConfigError for a section that is no
    dict.

    Where a run was made with two numbers of options, the one that gave its network its shape holds.
    """
    for section, body in values.items():
        if not isinstance(body, dict):
            raise ConfigError(f"config section {shown(section)!r} is not an object")
    found: dict[str, Any] = {section: {} for section in values}
    for section, body in values.items():
        for leaf, value in body.items():
            name, is_inverted = setting_name(f"{section}.{leaf}")
            if (section, leaf) == ("train", "max_options") and leaf in values.get("model", {}):
                continue
            if name in _GONE:
                if value != _GONE[name]:
                    raise ConfigError(
                        f"{name} = {value!r} is no more", kept="the run",
                        hint="train it on with the version that it was made with, or begin a new one",
                    )  # fmt: skip
                continue
            to, _, new = name.partition(".")
            found.setdefault(to, {})[new] = not value if is_inverted else value
    return found
