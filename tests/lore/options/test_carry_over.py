"""Going on with a version that knows other skills: what a skill has learned follows it by its name."""

import numpy as np
import pytest

from lore.config import load_config, replace
from lore.options.carry_over import carry_over
from lore.options.charge import PLAN, Charge
from lore.options.interpreter import propose
from lore.options.slots import GONE, NOBODY, Slots
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT
from lore.training.fork import fork
from lore.training.loop import train
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError, SchemeMismatch
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import parse_skill
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice

CRAFTER = get_environment("crafter")
A = len(CRAFTER.vocab.actions)
BASE = CRAFTER.skills[:6]


def new_skill(name: str, action: str):
    body = {"version": 1, "name": name, "start": {"op": "true"}, "steps": [{"do": "act", "action": action}],
            "done": {"op": "false"}, "max_steps": 5}  # fmt: skip
    return parse_skill(body, CRAFTER.vocab)


def version(skills, seed: int) -> str:
    rows = random_advice(CRAFTER, 20, np.random.default_rng(seed), skills=len(skills))
    writer = Store().writer("lib", "advice", environment=CRAFTER, skills=skills)
    writer.append("rows", **rows)
    return str(writer.commit("skills"))


def config(frames: int, advice: str, **more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 2000, "env.length": 60, "device": "cpu",
        "gate.enabled": True, "kickstart": 1.0, "options.enabled": True, "steps": frames,
    }  # fmt: skip
    return load_config(**small, dataset=advice, **more)


def test_new_skills_start_fresh_old_ones_keep_what_they_learned_and_a_rollback_drops_the_new(tmp_path, own_datasets):
    hop, dig = new_skill("hop", "move_up"), new_skill("dig", "do")
    one = version(BASE, 0)
    train(config(60, one), tmp_path, tensorboard=False)
    before, was = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)
    two = version((*BASE, hop), 1)
    assert train(config(61, two), tmp_path, tensorboard=False)["step"] == 61
    after, meta = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)
    assert meta["skill_names"] == [s.name for s in (*BASE, hop)] and meta["skills"] == 7
    states, proposals = after["replay/0/state"].numpy(), after["replay/0/proposals"].numpy()
    assert (proposals[:60, :6] == before["replay/0/proposals"].numpy()[:60]).all()
    for i in range(0, 60, 7):
        assert proposals[i, 6] == propose([hop], StateView(states[i], CRAFTER.vocab))[0]
    assert len(meta["controller"]["slots"]["statistics"]) == 7 == len(meta["controller"]["appeal"])
    Store().rollback(one)
    three = version((*BASE, dig), 2)  # as many skills as version 2, but the last one is another
    assert three.startswith("lib@v3")
    assert train(config(62, three), tmp_path, tensorboard=False)["step"] == 62
    final, meta = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)
    assert meta["skill_names"][-1] == "dig" and meta["controller"]["slots"]["statistics"][6]["uses"] == 0
    wanted = propose([dig], StateView(states[3], CRAFTER.vocab))[0]
    assert final["replay/0/proposals"].numpy()[3, 6] == wanted != proposals[3, 6]
    assert train(config(63, one), tmp_path, tensorboard=False)["step"] == 63
    assert checkpoint.load(tmp_path / CHECKPOINT)[1]["skills"] == was["skills"] == 6


def test_heads_and_moments_follow_their_skill_by_name(tmp_path, own_datasets):
    one = version(BASE, 0)
    train(config(60, one), tmp_path, tensorboard=False)
    tensors, meta = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)
    order = (BASE[4], new_skill("hop", "noop"), BASE[1])
    names = [n for n in tensors if n.startswith(("agent/heads.", "learner/optimiser/"))]
    fresh = {n: tensors[n].new_full((3 * len(tensors[n]) // 6, *tensors[n].shape[1:]), 7.0) for n in names
             if tensors[n].dim()}  # fmt: skip
    critics = [n for n in tensors if n.endswith("critic.mlp.linears.0.weight")]
    assert len(critics) == 4  # the critic, the slow one, two moments
    fresh |= {n: tensors[n] * 0.0 + 7.0 for n in critics}
    old = dict(tensors)
    meta["controller"]["slots"]["skill"][:3] = [0, 4, -1]
    meta["controller"]["slots"]["taught"][:3] = [0, 4, NOBODY]
    in_charge = tensors["replay/0/skill"].clone()
    tensors["replay/0/skill"][:4] = tensors["replay/0/skill"].new_tensor([4, 1, 0, -1])
    in_charge[:4] = tensors["replay/0/skill"][:4]
    meta["controller"]["slots"]["worth"]["means"] = [[float(k), 0.5, 0.25] for k in range(7)]  # the last: primitives
    assert carry_over(tensors, meta, fresh, order, CRAFTER.vocab)
    for key in ("agent/heads.", "learner/optimiser/square.heads.", "learner/optimiser/momentum.heads."):
        value, was = tensors[f"{key}action.weight"].view(3, A, -1), old[f"{key}action.weight"].view(6, A, -1)
        begins = was.mean(0) if "square" in key else 7.0  # second moments of a new skill: the mean of the others'
        assert (value[0] == was[4]).all() and (value[1] == begins).all() and (value[2] == was[1]).all()
        signs, were = tensors[f"{key}signs.bias"].view(3, 3), old[f"{key}signs.bias"].view(6, 3)
        begins = were.mean(0) if "square" in key else 7.0
        assert (signs[0] == were[4]).all() and (signs[1] == begins).all() and (signs[2] == were[1]).all()
        assert tensors[f"{key}patience"].shape == (3, 2)
    for name in critics:  # six skills had eight columns, and so have three
        value, was = tensors[name], old[name]
        begins = was[:, -8:-2].mean(1) if "square" in name else 7.0
        assert (value[:, :-8] == was[:, :-8]).all() and (value[:, -7] == begins).all()
        assert (value[:, -8] == was[:, -4]).all() and (value[:, -6] == was[:, -7]).all()
    assert meta["controller"]["slots"]["skill"][:3] == [-1, 0, -1]
    assert meta["controller"]["slots"]["taught"][:3] == [GONE, 0, NOBODY]  # of the first slot nothing is kept
    slots = Slots(2, tuple(skill.name for skill in order), 0.0)
    slots.skill[:], slots.taught[:] = [1, 2], [GONE, NOBODY]
    assert slots.take_over() == [0]
    moved = {4: 0, 1: 2}  # where the skills of before are now; the others have left
    wanted = [moved.get(k, -1) for k in in_charge.tolist()]
    assert tensors["replay/0/skill"].tolist() == wanted and wanted[:4] == [0, 2, -1, -1]
    worth = meta["controller"]["slots"]["worth"]
    assert [m[0] for m in worth["means"]] == [4.0, 0.0, 1.0, 6.0] and worth["open"] == []
    assert not any(charge["advised"] for charge in meta["controller"]["charges"])
    assert not carry_over(tensors, meta, fresh, order, CRAFTER.vocab)
    del meta["skill_names"]
    with pytest.raises(SchemeMismatch, match="not by which names"):
        carry_over(tensors, meta, fresh, BASE, CRAFTER.vocab)


def test_a_skill_that_was_mended_under_its_name_is_judged_afresh_and_acts_as_it_does_now(tmp_path, own_datasets):
    one = version((*BASE, new_skill("hop", "move_up")), 0)
    train(config(60, one, max_options=0), tmp_path, tensorboard=False)
    run = Training(config(60, one, max_options=0), tmp_path)
    run.restore()
    for k in (2, 6):
        used = run.policy.slots.statistics[k]
        used.uses, used.retired, run.policy.controller.guard.broken[k] = 30, True, True
    head = run.policy.agent.heads.action.bias.detach().clone()
    run.save()
    mended = version((*BASE, new_skill("hop", "move_down")), 0)
    again = Training(config(61, mended, max_options=0), tmp_path)
    again.restore()
    stored = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)[0]["replay/0/proposals"].numpy()[:60, 6]
    now = again.replay.arrays["proposals"][0, :60, 6].tolist()
    up, down = (CRAFTER.vocab.actions.index(name) for name in ("move_up", "move_down"))
    assert set(stored.tolist()) == {up} and set(now) == {down}
    uses = [(s.uses, s.retired) for s in again.policy.slots.statistics]
    assert uses[2] == (30, True) and uses[6] == (0, False)
    assert again.policy.controller.guard.broken.tolist() == [k == 2 for k in range(7)]
    assert again.policy.slots.skill.tolist() == run.policy.slots.skill.tolist()
    assert (again.policy.agent.heads.action.bias == head).all()  # what the networks learned of it stays
    restored = Training(config(61, one, max_options=0), tmp_path)
    restored.restore()
    assert restored.policy.slots.statistics[6].uses == 30  # the same skills: nothing was forgotten


def test_a_fork_cannot_begin_to_read_heads_that_its_run_has_not(tmp_path, own_datasets):
    one = version(BASE, 0)
    train(config(40, one), tmp_path / "run", tensorboard=False)
    with pytest.raises(ConfigError, match=r"cannot change gate\.weights"):
        fork(tmp_path / "run", tmp_path / "fork", config(80, one, **{"gate.weights": (0.5, 0.0, 0.5)}))
    with pytest.raises(ConfigError, match=r"cannot change gate\.kickstart"):
        fork(tmp_path / "run", tmp_path / "fork", replace(config(80, one), **{"gate.kickstart": 0.0}))
    other = config(80, one, **{"gate.weights": (0.5, 0.5, 0.0), "gate.cut_traces": True})
    fork(tmp_path / "run", tmp_path / "fork", other)
    assert train(other, tmp_path / "fork", tensorboard=False)


def test_a_plan_of_a_skill_that_left_the_library_ends_and_replay_names_plans_of_the_new_version(tmp_path, own_datasets):
    paths = {"synthetic.enabled": True, "options.max_options": 2}
    two, one = version(BASE[:2], 0), version(BASE, 1)  # then back to the version before
    train(config(60, one, **paths), tmp_path, tensorboard=False)
    run = Training(config(60, one, **paths), tmp_path)
    run.restore()
    run.policy.controller.charges[0] = Charge(kind=PLAN, plan=[A + 5, A + 4], foretold=True)
    synthetic = run.learner.synthetic
    assert synthetic is not None
    synthetic.buffer.size = 3
    run.save()
    again = Training(config(61, two, **paths), tmp_path)
    again.restore()
    assert [(c.kind, c.plan) for c in again.policy.controller.charges] == [("policy", [])]
    assert again.learner.synthetic is not None and again.learner.synthetic.buffer.size == 0
    assert train(config(61, two, **paths), tmp_path, tensorboard=False)["step"] == 61
    plans = checkpoint.load(tmp_path / CHECKPOINT, has_replay=True)[0]["replay/0/plan"].numpy()
    assert plans.max() < 20 + 2 and (plans >= -1).all()
