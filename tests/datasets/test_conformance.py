"""The conformance suite passes for the adapters that ship, and names what an adapter does wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flows.cli.main import main
from lore.config import EnvConfig
from lore.envs import make_env
from lore_datasets.environments import ENVIRONMENTS, TRUSTED, get_environment
from lore_datasets.errors import NotFound, UsageError
from lore_datasets.testing import check_adapter
from pipeline.questions.describe import describe

DOOR_KEY = "minigrid:MiniGrid-DoorKey-5x5-v0"


def faults(make, steps=120):
    return {found.name: found.fault for found in check_adapter(make, describe, steps=steps) if found.fault}


def game(name=DOOR_KEY):
    return make_env(EnvConfig(name=name, observation="symbolic"), 0)


@pytest.mark.parametrize("name", ["crafter", DOOR_KEY, "minigrid:BabyAI-GoToLocal-v0", "ale:Pong-v5"])
def test_the_shipped_adapters_pass(name):
    found = check_adapter(lambda: game(name), describe, steps=60)
    assert [each for each in found if each.fault] == [] and sum(not each.skipped for each in found) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crafter", DOOR_KEY, "ale:Pong-v5"])
def test_the_shipped_adapters_pass_over_a_thousand_steps(name):
    assert faults(lambda: game(name), 1000) == {}


def _forgetful():
    made = game()
    made.state_dict = lambda: {"version": 1, "seed": made._seed, "episode": made._episode, "actions": []}
    return made


def _leaking():
    made = game()
    before = made.symbolic

    def tells(observation, info):
        state = before(observation, info)
        grid = made.game.unwrapped.grid
        balls = sum(cell is not None and cell.type == "ball" for cell in grid.grid)
        return replace(state, view=np.where(state.view == 0, np.uint8(1 + balls % 3), state.view))

    made.symbolic = tells
    return made


def _raising():
    made = game()
    before, count = made.step, iter(range(10_000))

    def step(action):
        if next(count) == 90:
            raise ZeroDivisionError("the wheel came off")
        return before(action)

    made.step = step
    return made


@pytest.mark.parametrize(
    ("make", "name"),
    [(_forgetful, "goes on where it was saved"),
     (_leaking, "the symbolic view hides what the player cannot see"),
     (_raising, "plays, and every action is listed")],
)  # fmt: skip
def test_what_an_adapter_does_wrong_is_named(make, name):
    assert name in faults(make)


def test_lore_env_checks_shows_and_lists(capsys):
    assert main(["env", "check", DOOR_KEY, "--steps", "60"]) == 0
    assert main(["env", "show", DOOR_KEY]) == 0 and main(["env", "list"]) == 0
    told = capsys.readouterr().out
    assert "ok    the rule book speaks" in told and "reach_goal" in told and "minigrid  lore_datasets" in told
    assert main(["env", "check", "minigrid:MiniGrid-DoorKey-8x8-v9"]) != 0
    assert "MiniGrid-DoorKey-8x8-v0" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minigrid", None)
    with pytest.raises(UsageError, match=r"-e '.\[minigrid\]"):
        game()


def test_a_module_that_a_person_names_is_an_environment_and_one_that_a_file_names_is_not_imported(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(TRUSTED, "")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_words.py").write_text(
        "from lore_datasets.environments import Environment, get_environment\n"
        "OWN = Environment('own', get_environment('crafter').vocab, 'own/1')\n"
    )
    with pytest.raises(NotFound, match="trust"):
        get_environment("own_words:OWN")
    with pytest.raises(NotFound):
        get_environment("os:system")
    with pytest.raises(Exception, match="no Environment"):
        get_environment("os:system", named=True)  # imported as it was asked for, never called
    found = get_environment("own_words:OWN", named=True)
    assert found.name == found.vocab.environment == "own_words:OWN" and get_environment("own_words:OWN") is found


def test_an_installed_entry_point_is_an_environment(monkeypatch):
    from importlib.metadata import EntryPoint

    entry = EntryPoint("their_game", "lore_datasets.environments.crafter:environment", "lore.environments")
    monkeypatch.setattr("lore_datasets.environments.entry_points", lambda group: [entry])
    assert get_environment("their_game").vocab.environment == "their_game"


def test_an_action_space_of_another_kind_is_refused_by_name():
    import gymnasium

    from lore.envs.bridge import GymnasiumBridge

    with pytest.raises(Exception, match="action space"):
        GymnasiumBridge(
            get_environment(DOOR_KEY), gymnasium.make("Pendulum-v1"), seed=0, length=9, symbolic=None, frame=None
        )


def test_states_of_a_game_that_raises_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path))
    monkeypatch.setattr("lore.envs.make_env", lambda *given, **more: _raising())
    assert main(["collect", "--dataset", "kept", "--environment", DOOR_KEY, "--budget", "200"]) == 9
    told = capsys.readouterr().err
    assert "the wheel came off" in told and "states as kept@v1" in told


def test_pong_follows_the_ball_by_its_rules_and_other_games_have_pixels_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path))
    step = make_env(EnvConfig(name="ale:Pong-v5"), 0).reset(seed=1)
    assert step.image.shape == (64, 64, 3) and step.image.std() > 5 and step.state.any()
    plain = make_env(EnvConfig(name="ale:Breakout-v5"), 0).reset(seed=1)
    assert plain.image.shape == (64, 64, 3) and not plain.state.any()
    assert main(["collect", "--environment", "ale:Breakout-v5", "--budget", "5"]) != 0
    assert "no symbolic view" in capsys.readouterr().err
    env = get_environment("ale:Pong-v5")
    assert json.loads(env.rules.text)["rules"][0]["goal"] == "meet_ball" and ENVIRONMENTS["ale"]
