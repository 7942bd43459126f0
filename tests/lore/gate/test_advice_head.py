"""The advice head: it imitates, knows how often it is right, is silent off its ground, and enters imagination."""

import copy
from functools import cache

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.dreamer.actor_critic import ActorCritic
from lore.gate.advice_head import AdviceHead, AdvisedPolicy, advice_targets, held_out
from lore.gate.config import GateConfig
from lore.gate.gate import Gate
from lore.sizes import Size
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT
from lore.training.loop import train
from lore.training.policy import Policy
from lore_datasets.environments import get_environment
from lore_datasets.testing import random_states, small_advice

SIZE = Size(deter=8, hidden=8, classes=2, depth=4, units=16, stoch=2)
F, A = 12, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lesson(rows: int, generator: torch.Generator, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents whose first two coordinates decide the advice, a share of it at random; none where the third is low."""
    features = torch.rand(rows, F, generator=generator)
    best = 2 * (features[:, 0] > 0.5).long() + (features[:, 1] > 0.5).long()
    wrong = torch.rand(rows, generator=generator) < noise
    best = torch.where(wrong, torch.randint(A, (rows,), generator=generator), best)
    confidence = torch.where(features[:, 2] > 0.3, 0.9, 0.0)
    target = torch.nn.functional.one_hot(best, A).float() * (confidence > 0)[:, None]
    return features, target, confidence


def taught(noise: float) -> AdviceHead:
    """A head of the test's own that was taught 300 lessons."""
    return copy.deepcopy(_taught(noise))


@cache
def _taught(noise: float) -> AdviceHead:
    head, generator = AdviceHead(F, A, 32, seeded()), seeded(1)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(300):
        loss, _ = head.loss(*lesson(256, generator, noise))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return head


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_the_head_imitates_the_advice_and_its_confidence_is_how_often_it_is_right(noise):
    head = taught(noise)
    features, target, confidence = lesson(2000, seeded(5), noise)
    probs, sure = head.advise(features)
    advised = confidence > 0
    right = (probs.argmax(-1) == target.argmax(-1))[advised].float().mean()
    assert right > 0.9 * (1 - 0.75 * noise)
    clear = advised & (features[:, 2] > 0.4)
    assert sure[clear].mean().item() == pytest.approx(0.9 * right.item(), abs=0.1)
    assert sure[features[:, 2] < 0.2].mean() < 0.1  # nobody advised there


def test_off_the_replayed_ground_confidence_is_exactly_zero_and_nothing_is_added():
    head = taught(0.0)
    near, far = lesson(500, seeded(6), 0.0)[0], 6.0 * torch.randn(500, F, generator=seeded(7))
    assert (head.advise(far)[1] == 0).float().mean() > 0.99
    assert (head.advise(near)[1] > 0.3).float().mean() > 0.5
    assert (AdviceHead(F, A, 32, seeded()).advise(near)[1] == 0).all()  # untaught: silent everywhere
    policy = advised_policy(head)
    quiet = far[head.advise(far)[1] == 0]
    assert (policy.bias(quiet) == 0).all() and policy.bias(near).abs().max() > 0.5


def test_held_out_rows_teach_nothing_and_measure_what_was_learned():
    """The advice of held-out rows is another one than that of all others: the head's agreement tells."""
    head, generator = AdviceHead(F, A, 32, seeded()), seeded(1)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    metrics = {}
    for _ in range(300):
        features, target, confidence = lesson(256, generator, 0.0)
        held = torch.rand(256, generator=generator) < 0.2
        target = torch.where(held[:, None], target.roll(1, -1), target)
        loss, metrics = head.loss(features, target, confidence, held)
        assert (loss[held] == 0).all() and (loss[~held] > 0).all()
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    features, target, confidence = lesson(1000, seeded(5), 0.0)
    probs, sure = head.advise(features)
    assert (probs.argmax(-1) == target.argmax(-1))[confidence > 0].float().mean() > 0.9
    assert head.agreement < 0.1 and sure.max() < 0.1  # right about what it was taught, wrong where it was measured
    assert metrics["advice_head/claimed"] > 0.8 and metrics["advice_head/calibration_gap"] > 0.7
    honest, (features, target, confidence) = taught(0.0), lesson(1000, seeded(5), 0.0)
    _, metrics = honest.loss(features, target, confidence, torch.arange(1000) % 10 == 0)
    assert metrics["advice_head/calibration_gap"] < 0.1


def test_beta_falls_to_zero_as_a_latent_leaves_the_replayed_ones():
    head = taught(0.0)
    policy, near = advised_policy(head), lesson(400, seeded(6), 0.0)[0]
    size = [policy.bias(0.5 + scale * (near - 0.5)).abs().amax(-1).mean().item() for scale in (1.0, 2.0, 4.0, 8.0)]
    assert size[0] > 0.5 and size[0] > size[1] > size[2] and size[3] == 0.0


def test_a_state_is_held_out_always_or_never_and_one_in_ten_is():
    states = random_states(get_environment("crafter"), 4000, np.random.default_rng(0)).pack()
    held = held_out(torch.from_numpy(states))
    assert 0.08 < held.float().mean() < 0.12
    again = held_out(torch.from_numpy(states[::-1].copy()))
    assert torch.equal(held, again.flip(0))


def advised_policy(head: AdviceHead, **gate) -> AdvisedPolicy:
    critic = ActorCritic(F, A, SIZE, generator=seeded())
    lent = Gate(GateConfig(imagine=True, beta_max=3.0, uncertainty_threshold=0.2, **gate))
    return AdvisedPolicy(critic, head, lent, None, A)


def test_the_anneal_weakens_advice_in_imagination_as_it_does_in_the_game():
    policy, features = advised_policy(taught(0.0), anneal_steps=100), lesson(50, seeded(6), 0.0)[0]
    bias = []
    for policy.gate.env_steps in (0, 50, 100):
        bias.append(policy.bias(features))
    assert bias[0].abs().max() > 0.5
    torch.testing.assert_close(bias[1], bias[0] / 2)
    assert bias[2].abs().max() == 0.0


@pytest.mark.parametrize("cap", [0.02, 0.1, 0.5])
def test_the_hard_cap_bounds_the_divergence_of_every_imagined_decision(cap):
    head = taught(0.0)
    features = lesson(2000, seeded(8), 0.0)[0]
    free, bound = advised_policy(head), advised_policy(head, hard_cap=cap)

    def divergence(policy: AdvisedPolicy) -> torch.Tensor:
        mixed = policy(features).log_softmax(-1)
        return (mixed.exp() * (mixed - policy.critic.actor(features).log_softmax(-1))).sum(-1)

    with torch.no_grad():
        assert divergence(free).max() > 0.5
        assert divergence(bound).max() <= cap + 1e-6
        assert divergence(bound).max() > 0.2 * cap


def test_imagined_log_probabilities_are_those_of_the_mixed_policy():
    policy, features = advised_policy(taught(0.0)), lesson(1, seeded(9), 0.0)[0]
    many = features.expand(20_000, F)
    with torch.no_grad():
        logits, action, decision, charge, mask, _, _ = policy.policy_step(many, None, seeded(3))
        said = (policy.critic.actor(features) + policy.bias(features)).softmax(-1)[0]
    assert logits.requires_grad
    torch.testing.assert_close(logits[0].detach().softmax(-1), said)
    assert torch.equal(action, decision) and (charge == -1).all() and mask is None
    torch.testing.assert_close(action.bincount(minlength=A) / 20_000, said, atol=0.02, rtol=0.0)


def test_goals_become_next_actions_and_slots_in_the_targets():
    extended = torch.tensor([[0.2, 0.0, 0.5, 0.3], [0.0, 0.0, 0.0, 0.0]])  # two primitives, two skills
    proposals = torch.tensor([[1, 0], [-1, -1]])
    plain = advice_targets(extended, proposals, torch.zeros(0, dtype=torch.int64), 2)
    torch.testing.assert_close(plain, torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    slots = advice_targets(extended, proposals, torch.tensor([-1, 0]), 2)
    torch.testing.assert_close(slots[0], torch.tensor([0.5, 0.5, 0.0, 0.5]) / 1.5)


@pytest.mark.parametrize("options", [False, True], ids=["B", "B+C"])
def test_a_run_with_advice_in_imagination_resumes_to_the_bit(tmp_path, own_datasets, options):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=40))

    def config(frames: int):
        return load_config(
            size="tiny", observation="symbolic", batch_size=32, sequence_length=8, train_ratio=4.0, horizon=4,
            steps=frames, threads=1, replay_capacity=500, **{"gate.enabled": True}, dataset=ref, log_interval=20,
            **{"options.enabled": options},
            **{"gate.imagine": True, "gate.weights": (0.6, 0.2, 0.2), "env.length": 50, "save_interval_s": 3600.0},
        )  # fmt: skip

    assert Policy(config(90)).agent.advice_head is not None
    train(config(110), tmp_path / "straight", tensorboard=False)
    for frames in (60, 110):
        train(config(frames), tmp_path / "pieces", tensorboard=False)
    whole, pieces = (checkpoint.load(tmp_path / d / CHECKPOINT, has_replay=True)[0] for d in ("straight", "pieces"))
    assert all(torch.equal(value, pieces[name]) for name, value in whole.items())
    assert whole["agent/advice_head.far"] > 0  # taught in both
