"""Paths B and C together: options take steps from the policy's own primitives, not from the advice."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from lore.advice.lookup import AdviceSource
from lore.config import load_config
from lore.envs.crafter.adapter import CrafterEnv
from lore.gate.gate import Gate, softmax
from lore.options.charge import ADVICE, ENDS, OPTION, POLICY
from lore.options.controller import Controller
from lore.options.slots import Slots
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)
NAMES = [s.name for s in ENV.skills]
EXPLORE, SAPLING = NAMES.index("explore"), NAMES.index("collect_sapling")
CALL = np.where(np.arange(A + 2) == A, 9.0, 0.0)
"""Logits of a policy that nearly always calls the first slot."""
UNSURE = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def here() -> np.ndarray:
    return CrafterEnv(3, pixels=False).reset().state


def said(root, state: np.ndarray, entry: int) -> AdviceSource:
    """A version that names ``entry`` (an id over A+K) alone in one state."""
    known = (np.arange(A + K) == entry).astype(np.uint8)[None]
    writer = Store(root).writer("said", "advice", environment=ENV, skills=ENV.skills)
    writer.append(
        "rows", state=state[None], logits=known.astype(np.float32), mask=known,
        confidence=np.ones(1, np.float32), plans=np.full((1, 1, 12), -1, np.int16),
        plan_lengths=np.zeros((1, 1), np.int16), plan_scores=np.ones((1, 1), np.float32),
        applicable=np.ones((1, K), np.uint8), reason=["because"],
    )  # fmt: skip
    return AdviceSource(load_advice(str(writer.commit("said")), root=root))


def both(source: AdviceSource, beta: float, hold: int = 10) -> tuple[Controller, Slots]:
    """Paths B and C on, ``explore`` and ``collect_sapling`` in the two slots, an open gate without a budget."""
    slots = Slots(2, tuple(NAMES), 0.0)
    slots.skill[:] = [EXPLORE, SAPLING]
    config = load_config(
        dataset="said", **{"gate.enabled": True, "options.enabled": True, "options.max_options": 2},
        uncertainty_threshold=0.0, delta_target=100.0, beta_max=beta, hold=hold,
    )  # fmt: skip
    return Controller(config, source, slots, Gate(config.gate), 1, A, np.random.default_rng(0)), slots


def play(c: Controller, state: np.ndarray, steps: int, logits: np.ndarray = CALL) -> list[tuple[str, bool]]:
    """(who is in charge, whether the advice put it there) after each of some steps in one state."""
    out = []
    for _ in range(steps):
        c.act(0, state, 0.0, logits, UNSURE)
        out.append((c.charges[0].kind, c.charges[0].advised))
    return out


def test_an_option_of_the_policy_is_an_own_choice_at_every_step_and_the_gate_decides_there_too(tmp_path, here):
    c, _ = both(said(tmp_path, here, A + SAPLING), beta=0.0)
    assert play(c, here, 6) == [(OPTION, False)] * 6
    assert c.accounts.totals["decisions"] == 6
    assert [trial[0] for trial in c.gate.trust.open[0]] == [0.0] * 6  # six own choices
    assert [trial[0] for trial in c.accounts.slots.worth.open[0]] == [EXPLORE]  # of one call


def test_an_option_of_the_policy_ends_where_the_draw_is_one_that_the_advice_added(tmp_path, here):
    c, slots = both(said(tmp_path, here, 5), beta=0.0)
    play(c, here, 2)
    c.gate.beta_max = 50.0
    choice = c.act(0, here, 0.5, CALL, UNSURE)
    assert choice.action == 5 and choice.skill == -1 and c.charges[0].kind == POLICY
    used = slots.statistics[EXPLORE]
    assert used.outcomes == {"advised_away": 1} and used.reward == 0.5 and used.steps == 2
    assert used.judged == 0 and used.failure == {}
    assert choice.ended == ENDS.index("advised_away") and choice.held == 0
    assert c.act(0, here, 0.0, CALL, UNSURE).ended == 0


def test_an_option_of_the_policy_that_the_advice_names_goes_on_undisturbed(tmp_path, here):
    c, slots = both(said(tmp_path, here, A + EXPLORE), beta=0.0)
    play(c, here, 1)
    run = c.charges[0].run
    c.gate.beta_max = 50.0
    play(c, here, 4, -CALL)  # left to itself it would not call the option again
    assert c.charges[0].run is run and slots.statistics[EXPLORE].uses == 0
    assert [trial[0] for trial in c.gate.trust.open[0]] == [0.0] + [1.0] * 4


def test_an_option_of_the_policy_goes_on_where_the_advice_names_the_very_action_that_comes_next(tmp_path, here):
    idle, _ = both(said(tmp_path / "any", here, 0), beta=0.0)
    c, slots = both(said(tmp_path, here, int(idle.idle(here).proposals[EXPLORE])), beta=0.0)
    play(c, here, 1)
    c.gate.beta_max = 50.0
    assert play(c, here, 4, -CALL) == [(OPTION, False)] * 4 and slots.statistics[EXPLORE].uses == 0


@pytest.mark.parametrize("through", [OPTION, ADVICE])
def test_advice_is_held_as_long_through_a_slot_as_without_one(tmp_path, here, through):
    c, slots = both(said(tmp_path, here, A + EXPLORE), beta=50.0, hold=4)
    # Advice raises what the policy gives some mass: here the slot and no primitive, there the primitive and no slot.
    logits = np.full(A + 2, -700.0)
    logits[[A, A + 1] if through == OPTION else range(A)] = 12.0
    logits[A if through == OPTION else int(c.idle(here).proposals[EXPLORE])] = 0.0
    choices = [c.act(0, here, 0.0, logits, UNSURE) for _ in range(4)]
    assert (c.charges[0].kind, c.charges[0].advised) == (through, True)
    first = c.charges[0].run
    choices += [c.act(0, here, 0.0, logits, UNSURE) for _ in range(2)]
    assert [choice.held for choice in choices] == [0, 1, 2, 3, 0, 1]
    assert [choice.ended for choice in choices] == [0, 0, 0, 0, ENDS.index("hold_over"), 0]
    assert all(choice.advised and choice.skill == EXPLORE for choice in choices)
    assert slots.worth.open in ([], [[]])  # what advice chose is no call of the policy's
    assert c.accounts.totals["decisions"] == 2 and c.charges[0].run is not first
    assert c.metrics()["uncertainty_gate/held_share"] == 1.0
    if through == OPTION:
        assert slots.statistics[EXPLORE].outcomes == {"hold_over": 1} and slots.statistics[EXPLORE].judged == 0


def test_a_checkpoint_of_before_says_by_its_kind_what_the_advice_holds(tmp_path, here):
    c, _ = both(said(tmp_path, here, A + EXPLORE), beta=50.0, hold=4)
    play(c, here, 1, np.where(np.arange(A + 2) < A, 0.0, -700.0))
    state = json.loads(json.dumps(c.state_dict()))
    assert state["charges"][0].pop("advised") is True
    c.load_state_dict(state)
    assert c.charges[0].kind == ADVICE and c.charges[0].advised


def test_an_option_goes_on_but_for_the_share_that_the_advice_adds(tmp_path, here):
    c, _ = both(said(tmp_path, here, A + SAPLING), beta=0.0)
    play(c, here, 1)
    c.gate.beta_max = 0.9
    saved = json.dumps(c.state_dict())
    found, added = Counter(), np.zeros(0)
    for seed in range(1500):
        c.load_state_dict(json.loads(saved))
        c.rng = np.random.default_rng(seed)
        choice = c.act(0, here, 0.0, CALL, UNSURE)
        found[c.charges[0].kind, choice.skill] += 1
        drawn = c.decisions[0]
        added = np.maximum(drawn.mixed - softmax(drawn.logits, drawn.allowed), 0.0)
    assert set(found) == {(OPTION, EXPLORE), (ADVICE, SAPLING), (OPTION, SAPLING)}
    assert found[OPTION, EXPLORE] / 1500 == pytest.approx(1 - added.sum(), abs=0.04)
    assert found[ADVICE, SAPLING] / 1500 == pytest.approx(added[:A].sum(), abs=0.04)
    assert found[OPTION, SAPLING] / 1500 == pytest.approx(added[A:].sum(), abs=0.04)
