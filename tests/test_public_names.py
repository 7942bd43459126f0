"""Every module says what is public; the names that users of the original expect are there."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pytest

from flows.prefect_flows.runtime import prepare
from lore.aliases import SETTINGS, renamed, setting_name
from lore.config import from_dict, load_config, replace, to_dict
from lore.main import parse
from lore_datasets.errors import ConfigError

PACKAGES = ("lore_datasets", "pipeline", "lore", "flows")


def modules():
    for package in PACKAGES:
        root = importlib.import_module(package)
        yield package
        yield from (m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.") if "__main__" not in m.name)


@pytest.fixture(scope="module", autouse=True)
def prefect_home(tmp_path_factory):
    """Importing the flows imports Prefect, which must not touch the home folder."""
    if "prefect" not in sys.modules:
        prepare(tmp_path_factory.mktemp("prefect"))


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", list(modules()))
def test_a_module_lists_its_public_names_in_order_and_has_them(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} does not say what it is"
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert hasattr(module, "__path__"), f"{name} has no __all__"
        return
    assert list(listed) in (sorted(listed, key=order), sorted(listed)), f"{name}.__all__ is not in order"
    assert len(set(listed)) == len(listed)
    for each in listed:
        assert hasattr(module, each), f"{name} has no {each}"


ORIGINAL = [
    # section, name, the original's default (None: here another one, said in the docs), a value of its tuning section
    ("train", "total_frames", 1_000_000, 5000),
    ("train", "batch_size", None, 256),
    ("train", "learning_rate", None, 3e-4),
    ("train", "use_llm", False, True),
    ("train", "llm_model", "gemini-2.5-flash-lite", "gemini-2.5-flash"),
    ("train", "llm_timeout_s", None, 1.5),
    ("train", "llm_cache_size", 2000, 500),
    ("train", "synthetic_ratio_max", 0.25, 0.15),
    ("train", "synthetic_execution_prob", 0.2, 0.5),
    ("train", "synthetic_weight_decay", 0.95, 0.9),
    ("train", "option_generation_interval", 500, 200),
    ("train", "max_options", 8, 12),
    ("train", "skill_confidence_threshold", None, 0.6),
    ("train", "log_interval", None, 100),
    ("train", "replay_capacity", None, 50_000),
    ("model", "beta_max", 0.3, 0.5),
    ("model", "delta_target", 0.1, 0.05),
    ("model", "uncertainty_threshold", None, 0.3),
    ("model", "enable_synthetic_replay", False, True),
    ("model", "enable_hierarchical_options", False, True),
    ("model", "max_options", 8, 12),
]


@pytest.mark.parametrize(("section", "name", "default", "value"), ORIGINAL)
def test_every_setting_of_the_original_is_reachable_from_python_files_and_the_command_line(
    section, name, default, value
):
    old, advice = f"{section}.{name}", {"dataset": "a@v1"}
    if default is not None:
        assert load_config(**{old: default}) == load_config()
    changed = load_config(**{old: value}, **advice)
    assert changed == load_config(**{name: value}, **advice) == replace(load_config(), **{old: value}, **advice)
    assert changed == from_dict({section: {name: value}, "advice": advice}) == from_dict(to_dict(changed))
    now, leaf = setting_name(old)[0].split(".")
    assert getattr(getattr(changed, now), leaf) == value != getattr(getattr(load_config(), now), leaf)
    for flag in (old, name, name.replace("_", "-"), f"{now}.{leaf}", f"{now}.{leaf}".replace("_", "-")):
        words = [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        assert parse([*words, "--dataset", "a@v1"]).config() == changed, flag


def test_every_older_name_leads_to_a_setting_that_exists():
    today = to_dict(load_config())
    for old, new in SETTINGS.items():
        section, leaf = new.split(".")
        assert leaf in today[section] and setting_name(old)[0] == new
        assert old.split(".")[1] not in today.get(old.split(".")[0], {}), f"{old} is a setting of its own"


def test_two_names_of_one_setting_with_two_values_are_refused():
    with pytest.raises(ConfigError, match="one setting, given two values"):
        load_config(**{"train.max_options": 3, "model.max_options": 4})
    assert load_config(**{"train.max_options": 3, "model.max_options": 3}).options.max_options == 3


def test_the_settings_of_an_older_run_load():
    """``config.json`` as runs before had it: where the numbers of options differ, the network's shape decides."""
    before = {
        "train": {"total_frames": 500, "use_llm": True, "max_options": 2, "llm_cache_size": 7, "seed": 3},
        "model": {"beta_max": 0.7, "enable_hierarchical_options": True, "max_options": 4, "size": "tiny"},
        "gate": {"anneal_frames": 90, "hold": 2},
        "advice": {"dataset": "a@v1", "only_informative": False},
    }
    config = from_dict(before)
    assert (config.train.steps, config.train.seed, config.model.size) == (500, 3, "tiny")
    assert (config.gate.enabled, config.gate.beta_max, config.gate.anneal_steps, config.gate.hold) == (True, 0.7, 90, 2)
    assert (config.options.enabled, config.options.max_options) == (True, 4)
    assert (config.advice.cache_size, config.advice.accept_uninformative) == (7, True)
    assert renamed(to_dict(config)) == to_dict(config)
    gone = {"gate": {"imagine": False, "learn_weights": False, "hard_cap": 0.0}}
    assert from_dict(gone) == from_dict({})
    gone["gate"]["imagine"] = True
    with pytest.raises(ConfigError, match=r"gate\.imagine = True is no more"):
        from_dict(gone)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.total_frames", 0, "train.steps = 0 is out of range"),
        ("train.synthetic_ratio_max", 1.5, "synthetic.ratio_max = 1.5 is out of range"),
        ("model.beta_max", float("nan"), "gate.beta_max = nan is out of range"),
        ("model.size", "huge", "model.size = huge is out of range"),
        ("train.totl_frames", 5, "unknown setting 'train.totl_frames'"),
        ("enabled", True, "stands in several sections"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_range(name, value, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        replace(None, **{name: value})
