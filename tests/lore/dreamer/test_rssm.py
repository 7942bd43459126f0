import dataclasses

import pytest
import torch

from lore.dreamer.rssm import RSSM
from lore.dreamer.types import Latent
from lore.sizes import SIZES, Size

SMALL = Size(deter=64, hidden=8, classes=4, depth=4, units=16, stoch=6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(size: Size = SMALL, actions: int = 5, tokens: int = 10, seed: int = 0) -> RSSM:
    return RSSM(size, actions, tokens, seeded(seed))


def random_latent(rssm: RSSM, rows: int, seed: int = 1) -> Latent:
    index = torch.randint(rssm.size.classes, (rows, rssm.size.stoch), generator=seeded(seed))
    deter = torch.randn(rows, rssm.size.deter, generator=seeded(seed)).tanh()
    return Latent(deter, torch.nn.functional.one_hot(index, rssm.size.classes).float())


def sequence(rssm: RSSM, batch: int, steps: int, seed: int = 2):
    generator = seeded(seed)
    tokens = torch.randn(batch, steps, 10, generator=generator)
    action = torch.randint(rssm.actions, (batch, steps), generator=generator)
    return tokens, action, torch.zeros(batch, steps, dtype=torch.bool)


def drawn(rssm: RSSM, batch: int, steps: int, seed: int = 5) -> torch.Tensor:
    return torch.rand(steps, batch, rssm.size.stoch, generator=seeded(seed))


def test_initial_state_is_all_zeros():
    latent = make().initial(3)
    assert latent.deter.shape == (3, 64) and latent.stoch.shape == (3, 6, 4)
    assert latent.deter.abs().sum() == 0 and latent.stoch.abs().sum() == 0


def test_a_reset_row_equals_a_zero_state_with_the_zero_action_whatever_was_carried():
    rssm = make()
    tokens, action, _ = sequence(rssm, 2, 1)
    first = torch.ones(2, 1, dtype=torch.bool)
    carried = rssm.observe(tokens, action, first, random_latent(rssm, 2), drawn(rssm, 2, 1))
    other_action = (action + 1) % rssm.actions
    fresh = rssm.observe(tokens, other_action, first, rssm.initial(2), drawn(rssm, 2, 1))
    assert torch.equal(carried.latent.deter, fresh.latent.deter)
    assert torch.equal(carried.post_logits, fresh.post_logits)
    unmasked = rssm.observe(tokens, action, ~first, rssm.initial(2), drawn(rssm, 2, 1))
    assert not torch.equal(carried.latent.deter, unmasked.latent.deter), "the previous action must be zeroed too"


def test_a_reset_in_the_middle_cuts_the_past_off():
    rssm = make()
    tokens, action, first = sequence(rssm, 1, 6)
    first[0, 3] = True
    changed = tokens.clone()
    changed[:, :3] += 1.0
    one = rssm.observe(tokens, action, first, random_latent(rssm, 1, 1), drawn(rssm, 1, 6))
    other = rssm.observe(changed, action, first, random_latent(rssm, 1, 9), drawn(rssm, 1, 6))
    assert torch.equal(one.latent.deter[:, 3:], other.latent.deter[:, 3:])
    assert not torch.equal(one.latent.deter[:, :3], other.latent.deter[:, :3])


def test_permuting_the_batch_permutes_the_output():
    rssm, order = make(), torch.tensor([2, 0, 3, 1])
    latent, action = random_latent(rssm, 4), rssm.project_action(torch.tensor([0, 1, 2, 3]))
    out = rssm.core(latent.deter, latent.stoch, action)
    mixed = rssm.core(latent.deter[order], latent.stoch[order], action[order])
    torch.testing.assert_close(mixed, out[order])


def test_without_the_shared_projections_the_dynamics_are_block_diagonal():
    rssm = make()
    for norm in (rssm.deter_norm, rssm.stoch_norm, rssm.action_norm):
        torch.nn.init.zeros_(norm.scale)
    rssm.mix_norm = torch.nn.Identity()  # the norm mixes blocks by its scale alone
    latent = random_latent(rssm, 1)
    jacobian = torch.autograd.functional.jacobian(
        lambda deter: rssm.core(deter, latent.stoch, rssm.project_action(torch.tensor([0])))[0], latent.deter
    )[:, 0]
    blocks = jacobian.view(8, 8, 8, 8).abs().amax((1, 3))  # [block out, block in]
    assert (blocks - torch.diag(blocks.diag())).abs().max() == 0 and blocks.diag().min() > 0


def test_with_zero_weights_the_update_gate_keeps_731_thousandths_of_the_state():
    rssm = make()
    for parameter in rssm.parameters():
        torch.nn.init.zeros_(parameter)
    latent = random_latent(rssm, 3)
    out = rssm.core(latent.deter, latent.stoch, rssm.project_action(torch.zeros(3, dtype=torch.long)))
    torch.testing.assert_close(out, 0.73106 * latent.deter, rtol=1e-4, atol=1e-6)


def test_gates_are_three_slices_inside_each_block():
    rssm = make()
    for parameter in rssm.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():  # bias of the gate layer: block 2 gets candidate +inf-like and an open update gate
        bias = rssm.gates.bias.view(8, 3, 8)
        bias[2, 0], bias[2, 1], bias[2, 2] = 50.0, 50.0, 50.0
    out = rssm.core(torch.zeros(1, 64), torch.zeros(1, 6, 4), rssm.project_action(torch.tensor([0]))).view(8, 8)
    torch.testing.assert_close(out[2], torch.ones(8))
    assert out[[0, 1, 3, 4, 5, 6, 7]].abs().max() == 0


def test_acting_step_by_step_equals_observing_the_sequence():
    rssm = make()
    tokens, action, first = sequence(rssm, 3, 7)
    first[1, 2] = first[2, 5] = True
    start = random_latent(rssm, 3)
    uniform, latent = drawn(rssm, 3, 7), start
    seen = rssm.observe(tokens, action, first, start, uniform)
    for t in range(7):
        latent = rssm.observe_step(tokens[:, t], action[:, t], first[:, t], latent, uniform[t])
        torch.testing.assert_close(latent.deter, seen.latent.deter[:, t], atol=1e-6, rtol=1e-5)
        assert torch.equal(latent.stoch, seen.latent.stoch[:, t])


def test_the_sequence_prior_is_the_distribution_that_imagination_samples():
    rssm = make()
    tokens, action, first = sequence(rssm, 4000, 1)
    start = Latent(*(x[:1].expand(4000, *x.shape[1:]) for x in random_latent(rssm, 1)))
    seen = rssm.observe(tokens, action * 0, first, start, drawn(rssm, 4000, 1))
    nxt = rssm.imagine_step(start, torch.zeros(4000, dtype=torch.long), drawn(rssm, 4000, 1, 6)[0])
    torch.testing.assert_close(nxt.deter, seen.latent.deter[:, 0])
    probs = 0.99 * seen.prior_logits[0, 0].softmax(-1) + 0.01 / 4
    torch.testing.assert_close(nxt.stoch.mean(0), probs, atol=0.04, rtol=0)


def test_the_deter_carry_stays_float32_under_bfloat16_autocast():
    rssm = make()
    tokens, action, first = sequence(rssm, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        seen = rssm.observe(tokens, action, first, rssm.initial(2), drawn(rssm, 2, 3))
    assert {x.dtype for x in (*seen.latent, seen.post_logits, seen.prior_logits)} == {torch.float32}


def test_samples_depend_on_the_numbers_alone():
    rssm = make()
    tokens, action, first = sequence(rssm, 2, 4)
    one, same, other = (rssm.observe(tokens, action, first, rssm.initial(2), drawn(rssm, 2, 4, s)) for s in (1, 1, 2))
    assert torch.equal(one.latent.stoch, same.latent.stoch) and not torch.equal(one.latent.stoch, other.latent.stoch)


def test_one_action_more_adds_one_column_of_the_action_layer():
    sizes = [sum(p.numel() for p in make(actions=a).parameters()) for a in (5, 6)]
    assert sizes[1] - sizes[0] == SMALL.hidden


@pytest.mark.parametrize("name", ["tiny", "1m"])
def test_table_sizes_observe_and_imagine(name):
    size = dataclasses.replace(SIZES[name])
    rssm = RSSM(size, 17, 10, seeded())
    tokens, action, first = sequence(rssm, 2, 3)
    uniform = drawn(rssm, 2, 3)
    seen = rssm.observe(tokens, action, first, rssm.initial(2), uniform)
    assert seen.latent.features().shape == (2, 3, size.deter + 32 * size.classes)
    here = Latent(seen.latent.deter[:, 0], seen.latent.stoch[:, 0])
    assert rssm.imagine_step(here, action[:, 0], uniform[0]).deter.shape == (2, size.deter)
