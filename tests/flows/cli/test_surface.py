"""What users of the original LoRe expect to find: every setting, tag, command, environment variable and class."""

import dataclasses

import numpy as np
import pytest

from flows.cli import main as cli
from flows.config import asking
from lore.config import Config, load_config
from lore.main import Flags, full_names, option_names, parse
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.language.skills import OptionSpec, from_option_spec
from lore_datasets.testing import random_states, small_advice
from pipeline.config import AskConfig
from pipeline.llm.backends.adapter import LLMAdapter

CRAFTER = get_environment("crafter")
PATHS = {"use_llm": True, "enable_synthetic_replay": True, "enable_hierarchical_options": True}

TAGS = [
    "env/episode_return", "env/episode_length", "env/crafter_score",
    *(f"env/achievement/{name}" for name in CRAFTER.vocab.achievements),
    "loss/policy", "loss/value", "loss/dyn", "loss/rep", "loss/rew", "loss/con", "loss/repval",
    "uncertainty_gate/avg_kl", "uncertainty_gate/beta", "uncertainty_gate/entropy", "uncertainty_gate/value_spread",
    "uncertainty_gate/disagreement", "synthetic/ratio", "synthetic/weight", "synthetic/false_unlock_rate",
    "options/avg_success_rate", "options/active", "llm_adapter/cache_hit_rate", "llm_adapter/coverage_row",
    "llm_adapter/coverage_goal", "llm_adapter/coverage_model", "llm_adapter/coverage_none",
]  # fmt: skip

VERBS = ["demo", "collect", "advise", "train", "eval", "ablate", "refresh", "watch", "report", "up", "doctor"]
GROUPS = {
    "datasets": ["list", "show", "verify", "diff", "lineage", "export", "import", "tag", "rollback", "gc"],
    "skills": ["list", "show", "lint", "run", "edit", "ask"],
    "programs": ["edit", "ask"],
}


def test_a_configuration_is_frozen_and_its_sections_are_train_and_model():
    config = load_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.learning_rate = 1.0  # type: ignore[misc]
    assert {"train", "model"} <= {f.name for f in dataclasses.fields(Config)}


def test_the_originals_command_line_means_what_it_did():
    words = "--total_frames 100000 --device cuda --log_dir runs/x --use_llm --enable_synthetic_replay"
    words += " --enable_hierarchical_options"
    flags = parse([*words.split(), "--advice.dataset", "a@v1"])
    config = flags.config()
    assert (flags.folder, config.train.steps, config.train.device) == ("runs/x", 100_000, "cuda")
    assert config.gate.enabled and config.synthetic.enabled and config.options.enabled
    assert type(config) is Config and config == load_config(
        total_frames=100_000, device="cuda", dataset="a@v1", **PATHS
    )
    known = option_names(Flags)
    assert full_names(["--beta_max=0.5", "--log_dir", "x", "--max-options", "3", "--enabled"], known) == [
        "--gate.beta_max=0.5", "--folder", "x", "--options.max_options", "3", "--enabled",  # which of them?
    ]  # fmt: skip


def test_the_learners_settings_of_the_language_model_say_how_a_study_asks():
    config = load_config(llm_model="gemini-2.5-flash", llm_timeout_s=1.5)
    asked = asking(config, "gemini")
    assert (asked.backend, asked.model, asked.timeout_s) == ("gemini", "gemini-2.5-flash", 1.5)
    assert asking(config, "rules").model == "" and asking(load_config(), "rules") == AskConfig(backend="rules")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A run with every path on: (its TensorBoard tags, its rows)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path_factory.mktemp("run")
    ref = small_advice(folder / "datasets", CRAFTER, n=40)
    config = load_config(
        size="tiny", observation="symbolic", batch_size=32, sequence_length=8, train_ratio=4.0, horizon=5, warmup=5,
        threads=1, replay_capacity=2000, length=40, device="cpu", total_frames=160, log_interval=20,
        dataset=str(ref), **PATHS, **{"synthetic.warmup_updates": 2},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(folder / "datasets"))
        train(config, folder)
    return set(EventAccumulator(str(folder)).Reload().Tags()["scalars"]), read_jsonl(folder / "metrics.jsonl")


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_is_in_tensorboard(played, tag):
    assert tag in played[0]


def test_each_skill_that_was_used_has_its_success_rate(played):
    used = [tag for tag in played[0] if tag.startswith("options/") and tag.endswith("/success_rate")]
    assert used and {tag.split("/")[1] for tag in used} <= {s.name for s in CRAFTER.skills}


def test_shares_rates_and_weights_lie_between_zero_and_one(played):
    for row in played[1]:
        for tag, value in row.items():
            if tag.endswith(("_rate", "/ratio", "/weight", "_share")) or tag.startswith("llm_adapter/coverage"):
                assert 0.0 <= value <= 1.0, (tag, value)
        assert row.get("synthetic/ratio", 0.0) <= 0.25
        assert row.get("uncertainty_gate/beta", 0.0) <= 0.3


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_and_its_function_exists(verb):
    target, about = cli.VERBS[verb]
    module, _, name = target.partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name)) and about


@pytest.mark.parametrize(("group", "verb"), [(g, v) for g, verbs in GROUPS.items() for v in verbs])
def test_every_verb_of_a_group_is_there_and_its_function_exists(group, verb):
    target, about = cli.GROUPS[group][1][verb]
    module, _, name = target.partition(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name)) and about


def test_replay_lives_in_tensors_where_the_variable_says_so(monkeypatch):
    from lore.replay.backends import BACKENDS, VARIABLE, backend

    assert VARIABLE == "LORE_REPLAY_BACKEND" and "tensor" in BACKENDS
    monkeypatch.setenv("LORE_REPLAY_BACKEND", "tensor")
    assert backend() == "tensor"


def test_a_custom_adviser_answers_as_the_original_did():
    class Mine(LLMAdapter):
        def infer(self, obs_np, num_actions):
            return {"prior_logits": np.eye(num_actions)[2] * 3.0, "confidence": 0.9, "features": np.zeros(4)}

    answer = Mine().infer(random_states(CRAFTER, 1, np.random.default_rng(0))[0], 17)
    assert set(answer) == {"prior_logits", "confidence", "features"} and answer["prior_logits"].argmax() == 2


def test_a_custom_skill_is_an_option_spec_with_the_originals_fields():
    spec = OptionSpec("hop_3", "hop", "hop to the left and back", (1, 2), 2, 0.8)
    names = [f.name for f in dataclasses.fields(OptionSpec)]
    assert names == ["option_id", "name", "description", "primitive_actions", "expected_duration", "confidence"]
    assert [step["action"] for step in from_option_spec(spec, CRAFTER.vocab).steps] == ["move_left", "move_right"]
