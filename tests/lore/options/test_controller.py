"""Who acts: decisions under the gate, held advice, options, interruption, plans under test, and saving all of it."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from lore.advice.lookup import AdviceSource
from lore.advice.plans import PlanBook
from lore.config import load_config
from lore.envs.crafter.adapter import CrafterEnv
from lore.gate.gate import Gate
from lore.options.charge import ADVICE, OPTION, PLAN, POLICY, Charge
from lore.options.controller import PLAN_SHARE, Controller
from lore.options.slots import Slots
from lore.synthetic.rollout import HORIZON
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)
NAMES = [s.name for s in ENV.skills]
SURE = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def states(n: int, seed: int = 3) -> np.ndarray:
    """States of one random episode."""
    env, rng = CrafterEnv(seed, pixels=False), np.random.default_rng(seed)
    out = [env.reset().state]
    while len(out) < n:
        step = env.step(int(rng.integers(1, 6)))
        out.append((env.reset() if step.is_last else step).state)
    return np.array(out)


def advise(root, rows: np.ndarray, entry: int, plans: list[int] | None = None) -> AdviceSource:
    """A version that says ``entry`` (an id over A+K) in every given state."""
    n = len(rows)
    logits = np.full((n, A + K), -0.1, np.float32)
    logits[:, entry] = 5.0
    plan = np.full((n, 1, 12), -1, np.int16)
    if plans:
        plan[:, 0, : len(plans)] = plans
    writer = Store(root).writer("said", "advice", environment=ENV, skills=ENV.skills)
    writer.append(
        "rows", state=rows, logits=logits, mask=np.ones((n, A + K), np.uint8), confidence=np.ones(n, np.float32),
        plans=plan,
        plan_lengths=np.full((n, 1), len(plans or []), np.int16), plan_scores=np.ones((n, 1), np.float32),
        applicable=np.ones((n, K), np.uint8), reason=["because"] * n,
    )  # fmt: skip
    return AdviceSource(load_advice(str(writer.commit("said")), root=root))


def controller(source, *, slots=None, seed=0, envs=1, plans=None, **overrides) -> Controller:
    config = load_config(dataset="said", **{"gate.enabled": True}, **overrides)
    gate, rng = Gate(config.gate), np.random.default_rng(seed)
    return Controller(config, source, slots, gate, envs, A, rng, plans=plans)


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return np.unique(states(60), axis=0)


@pytest.fixture
def explore(tmp_path, seen):
    return advise(tmp_path, seen, A + NAMES.index("explore"))


def test_the_advised_goal_gets_more_mass_as_beta_grows(explore, seen):
    shares = []
    for beta in (0.0, 0.3, 5.0):
        c = controller(explore, beta_max=beta, delta_target=100.0, hold=1)
        choices = [c.act(0, seen[i % len(seen)], 0.0, np.zeros(A), SURE) for i in range(300)]
        k = NAMES.index("explore")
        shares.append(np.mean([x.action == x.proposals[k] for x in choices]))
    assert shares[0] < 0.15 < shares[1] < shares[2]
    assert shares[2] > 0.9


def test_a_held_goal_stays_in_charge_for_at_most_the_hold(explore, seen):
    c = controller(explore, beta_max=50.0, delta_target=100.0, hold=5, uncertainty_threshold=0.0)
    kinds = []
    env = CrafterEnv(5, pixels=False)
    step = env.reset()
    for _ in range(60):
        choice = c.act(0, seen[0] if len(kinds) == 0 else step.state, step.reward, np.zeros(A), SURE)
        kinds.append(c.charges[0].kind)
        step = env.step(choice.action)
    runs = "".join("a" if k == ADVICE else "." for k in kinds).split(".")
    assert max(map(len, runs)) <= 5
    assert kinds[0] == ADVICE


def test_hold_one_decides_at_every_step(explore, seen):
    c = controller(explore, hold=1)
    for i in range(20):
        c.act(0, seen[i % len(seen)], 0.0, np.zeros(A), SURE)
    assert c.accounts.totals["decisions"] == 20
    assert c.metrics()["uncertainty_gate/held_share"] == 0.0


def test_the_policys_own_choice_is_never_held(explore, seen):
    c = controller(explore, hold=10, beta_max=0.0)
    for i in range(20):
        c.act(0, seen[i % len(seen)], 0.0, np.zeros(A), SURE)
    assert c.accounts.totals["decisions"] == 20


def test_damage_interrupts_whoever_is_in_charge(explore, seen):
    c = controller(explore, beta_max=50.0, delta_target=100.0, hold=10, uncertainty_threshold=0.0)
    state = seen[0].copy()
    at = ENV.layout.offsets()["vitals"].start
    state[at] = 9
    c.act(0, seen[0], 0.0, np.zeros(A), SURE)
    assert c.charges[0].kind == ADVICE
    c.charges[0].health = 9
    hurt = seen[0].copy()
    hurt[at] = 5
    decisions = c.accounts.totals["decisions"]
    c.act(0, hurt, 0.0, np.zeros(A), SURE)
    assert c.accounts.totals["decisions"] == decisions + 1 or c.charges[0].kind == POLICY


def test_mean_divergence_per_decision_respects_the_budget(explore, seen):
    rng = np.random.default_rng(0)
    c = controller(explore, beta_max=5.0, delta_target=0.1, hold=1)
    values = []
    for i in range(1000):
        c.act(0, seen[i % len(seen)], 0.0, rng.normal(0, 0.1, A), SURE)
        values.append(c.metrics()["uncertainty_gate/avg_kl"])
    assert np.mean(values[500:]) <= 0.105
    assert np.mean(values[500:]) > 0.02


def test_actions_come_as_often_as_the_mixed_distribution_says(explore, seen):
    c = controller(explore, beta_max=2.0, delta_target=100.0, hold=1)
    counts = Counter(c.act(0, seen[0], 0.0, np.linspace(-1, 1, A), SURE).action for _ in range(1000))
    mixed = c.decisions[0].mixed
    np.testing.assert_allclose([counts[a] / 1000 for a in range(A)], mixed[:A], atol=0.03)
    assert mixed.sum() == pytest.approx(1.0) and c.metrics()["uncertainty_gate/avg_kl"] > 0.0
    held = controller(explore, beta_max=1.0, delta_target=100.0, hold=5, uncertainty_threshold=0.0)
    for decides in (True, False):
        held.act(0, seen[0], 0.0, np.zeros(A), SURE)
        assert (held.decisions[0] is not None) == decides


def test_without_advice_the_controller_samples_the_policy(seen):
    c = Controller(load_config(), None, None, None, 1, A, np.random.default_rng(0))
    logits = np.zeros(A)
    logits[4] = np.log(16)
    counts = Counter(c.act(0, seen[0], 0.0, logits, SURE).action for _ in range(2000))
    assert counts[4] / 2000 == pytest.approx(0.5, abs=0.04)
    assert c.metrics() == {}


def test_certain_agents_and_strange_states_get_no_advice(explore, seen):
    c = controller(explore, beta_max=1.0, uncertainty_threshold=0.5)
    for i in range(50):
        c.act(0, seen[i % len(seen)], 0.0, np.zeros(A), torch.zeros(3, dtype=torch.float64))
    assert c.metrics()["uncertainty_gate/beta"] < 0.01
    strange = seen[0].copy()
    strange[:63] = ENV.vocab.target("water")
    c.act(0, strange, 0.0, np.zeros(A), SURE)
    figures = c.metrics()
    assert figures["llm_adapter/coverage_none"] == 1.0
    assert figures["uncertainty_gate/beta"] == 0.0


def option_controller(source, **overrides) -> tuple[Controller, Slots]:
    slots = Slots(2, tuple(NAMES), 0.2)
    slots.skill[:] = [NAMES.index("explore"), NAMES.index("make_iron_sword")]
    config = load_config(dataset="said", **{"options.enabled": True, "options.max_options": 2}, **overrides)
    return Controller(config, source, slots, None, 1, A, np.random.default_rng(0)), slots


def test_an_option_is_called_runs_until_it_ends_and_is_accounted(explore):
    c, slots = option_controller(explore)
    env = CrafterEnv(5, pixels=False)
    step = env.reset()
    logits = np.full(A + 2, -30.0)
    logits[A] = 30.0
    for _ in range(200):
        choice = c.act(0, step.state, step.reward, logits, SURE)
        assert choice.skill == NAMES.index("explore") or c.charges[0].kind == POLICY
        step = env.step(choice.action)
        if step.is_last:
            break
    used = slots.statistics[NAMES.index("explore")]
    assert used.uses >= 3
    assert used.steps > used.uses
    assert c.metrics()["options/step_share"] > 0.8


def test_a_use_that_failed_leaves_where_it_began_and_what_it_did(explore, seen):
    c, slots = option_controller(explore)
    logits = np.full(A + 2, -30.0)
    logits[A] = 30.0
    played = [c.act(0, seen[0], 0.25, logits, SURE).action for _ in range(3)]
    c.reset(0, 0.25)  # the episode ends in the middle of the skill
    used = slots.statistics[NAMES.index("explore")]
    assert used.outcomes == {"episode_end": 1} and used.success_rate == 0.0 and used.reward == 0.75
    assert used.failure == {"state": seen[0].tobytes().hex(), "actions": played, "outcome": "episode_end"}
    logits[:A] = 40.0
    for _ in range(4):
        c.act(0, seen[0], 0.5, logits, SURE)
    assert slots.primitive == [3, 1.5]  # the first reward came with the state that began the episode


def test_a_slot_whose_skill_cannot_start_is_masked(explore, seen):
    c, _ = option_controller(explore)
    logits = np.zeros(A + 2)
    logits[A + 1] = 50.0  # make_iron_sword is never feasible here
    for i in range(30):
        choice = c.act(0, seen[i % len(seen)], 0.0, logits, SURE)
        assert choice.skill != NAMES.index("make_iron_sword")


def test_plans_under_test_are_played_for_real_and_false_promises_counted(tmp_path, seen):
    source = advise(tmp_path, seen, 0, plans=[1, 2, 3])
    c = controller(source, plans=PlanBook(source.data), beta_max=0.0)
    c.plan_tests = c.plan_share = 1.0
    played = [c.act(0, seen[0], 0.0, np.zeros(A), SURE, lambda env, plan: True) for _ in range(4)]
    assert [p.action for p in played[:3]] == [1, 2, 3]
    c.reset(0)
    figures = c.metrics()
    assert figures["synthetic/plans_executed"] >= 1.0
    assert figures["synthetic/false_unlock_rate"] == 1.0


def test_a_goal_in_a_plan_under_test_is_pursued_by_its_skill_until_it_ends_and_survives_saving(tmp_path, seen):
    explore, sword = A + NAMES.index("explore"), A + NAMES.index("make_iron_sword")
    source = advise(tmp_path, seen, 0, plans=[explore, sword, 3])

    def fresh(seed=0, source=source):
        c = controller(source, plans=PlanBook(source.data), beta_max=0.0, seed=seed)
        c.plan_tests = c.plan_share = 1.0
        return c

    c, asked = fresh(), []
    first = c.act(0, seen[0], 0.0, np.zeros(A), SURE, lambda env, plan: asked.append(plan) or True)
    charge = c.charges[0]
    assert asked == [[explore, sword, 3]] and charge.kind == PLAN and charge.foretold
    assert charge.goal == NAMES.index("explore") and first.advised  # a test is no choice of the agent's
    assert first.skill == -1 and charge.run is not None and charge.plan == [sword, 3]
    again = fresh(1)
    again.load_state_dict(json.loads(json.dumps(c.state_dict())))
    for i in range(HORIZON):
        one, two = (each.act(0, seen[i % len(seen)], 0.0, np.zeros(A), SURE) for each in (c, again))
        assert one.action == two.action
    assert c.metrics()["synthetic/plans_executed"] == 1.0  # as many steps as are imagined, then it is over


def test_a_plan_under_test_ends_at_a_goal_that_cannot_begin_as_in_imagination(tmp_path, seen):
    sword = A + NAMES.index("make_iron_sword")
    for plan, played in (([sword, 1, 2], []), ([1, sword, 2], [1]), ([1, 2], [1, 2])):
        source = advise(tmp_path / str(len(played)), seen, 0, plans=plan)
        c = controller(source, plans=PlanBook(source.data), beta_max=0.0)
        c.plan_tests = c.plan_share = 1.0
        kinds, actions = [], []
        for _ in range(len(played) + 1):
            actions.append(c.act(0, seen[0], 0.0, np.zeros(A), SURE).action)
            kinds.append(c.charges[0].kind == PLAN)
            c.plan_tests = 0.0  # one test
        assert actions[: len(played)] == played and kinds == [True] * len(played) + [False]


def test_plans_under_test_take_a_small_share_of_the_steps_however_often_decisions_are_taken(tmp_path, seen):
    source = advise(tmp_path, seen, 0, plans=[1, 2, 3, 1, 2, 3])
    c = controller(source, plans=PlanBook(source.data), beta_max=0.0)
    c.plan_tests = 1.0  # at every decision that may
    for i in range(600):
        c.act(0, seen[i % len(seen)], 0.0, np.zeros(A), SURE)
    steps, tested = c.accounts.played
    assert steps == 600 and 0.02 * steps < tested <= PLAN_SHARE * steps + 6
    again = controller(source, plans=PlanBook(source.data), beta_max=0.0)
    again.load_state_dict(json.loads(json.dumps(c.state_dict())))
    assert again.accounts.played == c.accounts.played


def test_an_unlock_that_came_true_is_not_a_false_promise(tmp_path, seen):
    source = advise(tmp_path, seen, 0, plans=[1, 2])
    c = controller(source, plans=PlanBook(source.data), beta_max=0.0)
    c.charges[0] = Charge(kind=PLAN, plan=[2], foretold=True)
    c.act(0, seen[0], 0.0, np.zeros(A), SURE)
    c.reset(0, 1.0)
    assert c.metrics()["synthetic/false_unlock_rate"] == 0.0


def test_health_lost_on_the_way_does_not_hide_an_unlock_and_a_plan_cut_short_says_nothing(tmp_path, seen):
    source = advise(tmp_path, seen, 0, plans=[1, 2])
    c = controller(source, plans=PlanBook(source.data), beta_max=0.0)
    c.charges[0] = Charge(kind=PLAN, plan=[2, 2], foretold=True, health=9)
    for reward in (-0.1, 0.8):  # the unlock pays 1, two points of health are lost with it
        c.act(0, seen[0], reward, np.zeros(A), SURE)
    c.reset(0, -0.1)
    assert c.accounts.promises.tolist() == [1, 0]
    c.charges[0] = Charge(kind=PLAN, plan=[2, 2], foretold=True, health=10**3, steps=1)  # hurt: interrupted
    c.act(0, seen[0], 0.0, np.zeros(A), SURE)
    c.reset(0)
    assert c.accounts.promises.tolist() == [1, 0]
    c.charges[0] = Charge(kind=PLAN, plan=[], foretold=True)
    c.reset(0, 0.1)
    assert c.accounts.promises.tolist() == [2, 1]
    assert c.metrics()["synthetic/false_unlock_rate"] == 0.5
    again = controller(c.source, beta_max=0.0)
    again.load_state_dict(c.state_dict())
    assert again.accounts.promises.tolist() == [2, 1]


def test_saving_in_the_middle_of_everything_continues_exactly(explore):
    def play(c, env, step, n):
        actions = []
        for _ in range(n):
            choice = c.act(0, step.state, step.reward, np.linspace(0, 1, A + 2), SURE)
            actions.append(choice.action)
            step = env.step(choice.action)
            if step.is_last:
                c.reset(0, step.reward)
                step = env.reset()
        return actions, step

    import json

    c, _ = option_controller(explore, **{"gate.enabled": True})
    env = CrafterEnv(8, pixels=False)
    _, step = play(c, env, env.reset(), 37)
    saved = json.loads(json.dumps(c.state_dict()))
    world = json.loads(json.dumps(env.state_dict()))
    expected, _ = play(c, env, step, 60)
    d, _ = option_controller(explore, **{"gate.enabled": True})
    d.load_state_dict(saved)
    other = CrafterEnv(8, pixels=False)
    other.load_state_dict(world)
    again, _ = play(d, other, step, 60)
    assert again == expected
    assert d.state_dict() == c.state_dict()
    assert any(k in (OPTION, ADVICE) for k in [c.charges[0].kind]) or c.accounts.totals["steps"] >= 97
