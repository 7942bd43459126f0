"""Kickstarting: what the actor is drawn to, how strongly, and when."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.dreamer.actor_critic import ActorCritic
from lore.dreamer.losses import replay_returns
from lore.dreamer.returns import CONTINUE_SCALE, LAMBDA
from lore.gate import trust
from lore.gate.config import GateConfig
from lore.gate.gate import Gate
from lore.gate.kickstart import first_choices, kickstart_loss, kickstart_weight, slot_targets
from lore.sizes import SIZES
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.testing import small_advice

A, F = 3, 12
ADVICE = torch.tensor([[0.1, 0.0, 0.0, 0.5, 0.3, 0.1], [0.0] * 6])  # three primitives, three skills; then none
PROPOSALS = torch.tensor([[2, 1, -1], [0, 0, 0]])
SLOTS = torch.tensor([1, -1, 2])


def batch(n: int = 1) -> dict[str, torch.Tensor]:
    """One sequence of ``n`` times the two states above, the first of them advised with confidence .8."""
    sure = torch.tensor([0.8, 0.0])
    rows = {"advice": ADVICE, "proposals": PROPOSALS.to(torch.int8), "confidence": sure}
    return {name: value.repeat(n, *[1] * (value.ndim - 1))[None] for name, value in rows.items()}


def test_a_skills_mass_goes_to_its_slot_alone_and_to_its_next_action_where_it_has_none():
    whole, primitive = slot_targets(ADVICE, PROPOSALS, SLOTS, A)
    # The skill that cannot act gives nothing; the first has no slot, the second sits in slot 0.
    torch.testing.assert_close(whole[0], torch.tensor([0.1, 0.0, 0.5, 0.3, 0.0, 0.0]) / 0.9)
    torch.testing.assert_close(primitive[0], torch.tensor([0.1, 0.3, 0.5]) / 0.9)
    assert whole[1].sum() == 0 == primitive[1].sum()
    plain, same = slot_targets(ADVICE, PROPOSALS, SLOTS[:0], A)
    torch.testing.assert_close(plain, same)


def test_what_the_advice_prefers_less_is_left_out_and_equal_choices_share():
    said = torch.tensor([[0.1, 0.0, 0.0, 0.5, 0.3, 0.1], [0.0] * 6, [0.0, 0.25, 0.25, 0.25, 0.25, 0.0]])
    found = first_choices(said)
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.0, 0.0, 0.5, 0.0, 0.0]))
    assert found[1].sum() == 0 and (found[2] == said[2]).all()  # of the control nothing changes


def test_descending_the_loss_draws_all_entries_to_the_slots_and_the_primitives_alone_to_the_next_actions():
    generator = torch.Generator().manual_seed(0)
    critic = ActorCritic(F, A + 3, SIZES["tiny"], generator=generator)
    features = torch.randn(1, F, generator=generator).expand(2, F)
    optimiser = torch.optim.Adam(critic.actor.parameters(), 1e-2)
    goals = batch() | {"advice": torch.tensor([[[0.0, 0.0, 0.0, 0.4, 0.4, 0.2], [0.0] * 6]])}
    slots = torch.tensor([1, 0, 2])  # the skill in the last one cannot start
    for _ in range(400):
        optimiser.zero_grad()
        loss, metrics = kickstart_loss(critic, features, goals, slots, A)
        assert loss[1] == 0
        loss.mean().backward()
        optimiser.step()
    logits = critic.actor(features)[0].detach()
    torch.testing.assert_close(logits[A : A + 2].softmax(0), torch.tensor([1.0, 1.0]) / 2, atol=0.03, rtol=0.0)
    assert logits[: A + 2].softmax(0)[:A].sum() < 0.05
    torch.testing.assert_close(logits[:A].softmax(0), torch.tensor([0.0, 1.0, 1.0]) / 2, atol=0.03, rtol=0.0)
    assert metrics["kickstart/agreement"] == 1.0 and metrics["kickstart/advised"] == 0.5


def test_the_loss_is_the_cross_entropy_to_the_first_choice_among_what_may_be_chosen_times_the_confidence():
    generator = torch.Generator().manual_seed(0)
    critic = ActorCritic(F, A + 3, SIZES["tiny"], generator=generator)
    torch.nn.init.normal_(critic.actor.out.weight, generator=generator)
    features = torch.randn(2, F, generator=generator)
    said = {"advice": torch.tensor([[[0.1, 0.0, 0.0, 0.2, 0.6, 0.1], [0.5, 0.2, 0.0, 0.3, 0.0, 0.0]]])}
    said["confidence"] = torch.tensor([[0.8, 0.3]])
    loss, metrics = kickstart_loss(critic, features, batch() | said, SLOTS, A)
    logits = critic.actor(features)
    # Slot 0 holds the skill that the first state's advice names, slot 1 none, slot 2 one that cannot start there.
    in_all = logits[0, : A + 1].log_softmax(-1), logits[1, [0, 1, 2, 3, 5]].log_softmax(-1)
    alone = logits[:, :A].log_softmax(-1)
    wanted = torch.stack([-0.8 * (in_all[0][A] + alone[0, 1]), -0.3 * (in_all[1][0] + alone[1, 0])])
    torch.testing.assert_close(loss, wanted)
    hits = [int(in_all[0].argmax()) == A, int(in_all[1].argmax()) == 0]
    assert metrics["kickstart/agreement"] == sum(hits) / 2


def test_the_weight_falls_from_its_start_to_its_floor_and_with_the_trust():
    gate, weights = Gate(GateConfig(kickstart=1.0, kickstart_floor=0.2, kickstart_steps=1000)), []
    gate.trust.means[False].weight, gate.trust.means[True].weight = 500.0, 19.0
    assert kickstart_weight(gate) == 0.0  # nobody knows yet whether following it harms
    gate.trust.means[True].weight = 20.0
    for gate.env_steps in (0, 500, 1000, 5000):
        weights.append(kickstart_weight(gate))
    assert weights == pytest.approx([1.0, 0.6, 0.2, 0.2])
    gate.trust.value = 0.01
    assert kickstart_weight(gate) == pytest.approx(0.002)
    own, followed = gate.trust.means
    own.mean, own.square, followed.square = 0.3, 0.09 + 0.5, 1.0
    assert 0.5 * trust.DOUBT < gate.trust.harm() < trust.DOUBT  # no verdict, but something speaks for harm
    assert kickstart_weight(gate) == 0.0


def test_path_b_kickstarts_by_default_and_where_it_is_off_the_default_says_nothing():
    assert load_config(dataset="said", **{"gate.enabled": True}).keeps_advice
    assert not load_config(dataset="said", **{"gate.enabled": True, "gate.kickstart": 0.0}).keeps_advice
    assert not load_config().keeps_advice and load_config() == load_config(**{"gate.kickstart": 1.0})


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"gate.kickstart": 0.5, "gate.kickstart_floor": 0.6, "gate.enabled": True}, "rise"),
        ({"gate.kickstart": 0.5}, "no advice"),
        ({"gate.kickstart": -1.0, "gate.enabled": True}, "gate.kickstart"),
        ({"gate.kickstart": 1.0, "gate.kickstart_steps": 0, "gate.enabled": True}, "kickstart_steps"),
    ],
)
def test_a_schedule_that_rises_and_kickstarting_without_advice_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word) as caught:
        load_config(dataset="said", **settings)
    assert caught.value.hint


def config(ref: str, frames: int, **more):
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 16.0,
        "horizon": 3, "warmup": 5, "threads": 1, "replay_capacity": 500, "steps": frames, "dataset": ref,
        "log_interval": 20, "device": "cpu", "save_interval_s": 3600.0, "gate.enabled": True, "env.length": 50,
        "learning_rate": 1e-3,
    }  # fmt: skip
    return load_config(**(small | more))


@pytest.mark.parametrize("prior", ["stored", "uniform"])
@pytest.mark.parametrize("options", [False, True], ids=["B", "B+C"])
def test_a_kickstarted_run_learns_the_advice_and_resumes_to_the_bit(
    tmp_path, own_datasets, digest, monkeypatch, options, prior
):
    monkeypatch.setattr(trust, "MIN_TRIALS", 1)  # tested in the first steps
    monkeypatch.setattr(trust, "DOUBT", 1e9)
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=40))
    paths = {"gate.kickstart": 1.0, "options.enabled": options, "options.max_options": 26, "advice.prior": prior}
    train(config(ref, 110, **paths), tmp_path / "straight", tensorboard=False)
    for frames in (60, 110):
        train(config(ref, frames, **paths), tmp_path / "pieces", tensorboard=False)
    assert digest(tmp_path / "straight") == digest(tmp_path / "pieces")
    if prior == "uniform":  # every state is answered
        found = [r["loss/kickstart"] for r in read_jsonl(tmp_path / "straight" / "metrics.jsonl") if "opt/loss" in r]
        assert len(found) >= 2 and found[-1] < found[0]


def test_replay_says_which_steps_advice_took(own_datasets, tmp_path):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=40))
    run = Training(config(ref, 60, **{"advice.prior": "uniform", "beta_max": 50.0, "delta_target": 50.0}), tmp_path)
    run.steps = run.envs.reset()
    shares = []
    for run.policy.gate.beta_max in (50.0, 0.0):
        said = []
        for _ in range(60):
            actions, records = run.policy.act(run.steps)
            said.append(bool(records[0]["advised"]))
            charge = run.policy.controller.charges[0]
            assert said[-1] or not charge.advised
            run.steps = run.envs.step(actions)
        shares.append(np.mean(said[12:]))
    assert shares[0] > 0.9 and shares[1] == 0.0


def test_a_cut_trace_keeps_what_followed_an_advised_step_out_of_the_return_before_it():
    boot, reward = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0.0, 0.5, 0.25, 0.0]])
    never, advised = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[False, True, False, False]])
    cut = LAMBDA * (~advised).float()
    returns = [replay_returns(boot, r, never, never, cut) for r in (reward, reward + torch.tensor([[0, 0, 9.0, 0]]))]
    torch.testing.assert_close(returns[0][0, 0], torch.tensor(0.5 + CONTINUE_SCALE * 2.0))
    assert returns[0][0, 0] == returns[1][0, 0] and returns[0][0, 1] != returns[1][0, 1]
    whole = replay_returns(boot, reward, never, never)
    assert not torch.equal(whole, returns[0])


def test_a_run_with_cut_traces_learns_another_critic(tmp_path, own_datasets, digest):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=40))
    found = []
    for cut in (False, True):
        paths = {"advice.prior": "uniform", "beta_max": 3.0, "delta_target": 3.0, "gate.cut_traces": cut}
        train(config(ref, 60, **paths), tmp_path / str(cut), tensorboard=False)
        found.append(digest(tmp_path / str(cut)))
    assert found[0] != found[1]
