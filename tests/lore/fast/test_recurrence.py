import dataclasses

import pytest
import torch

from lore.dreamer.rssm import RSSM
from lore.dreamer.types import Latent
from lore.fast import parallel
from lore.sizes import SIZES, Size
from tests.lore.fast.forms import assert_same, both, seeded, shaken

pytest.importorskip("numba")
SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=16, stoch=6)


def random_latent(rssm: RSSM, rows: int, seed: int = 1) -> Latent:
    index = torch.randint(rssm.size.classes, (rows, rssm.size.stoch), generator=seeded(seed))
    deter = torch.randn(rows, rssm.size.deter, generator=seeded(seed)).tanh()
    return Latent(deter, torch.nn.functional.one_hot(index, rssm.size.classes).float())


def sequence(rssm: RSSM, batch: int, steps: int):
    generator = seeded(2)
    tokens = torch.randn(batch, steps, 10, generator=generator)
    action = torch.randint(rssm.actions, (batch, steps), generator=generator)
    first = torch.zeros(batch, steps, dtype=torch.bool)
    first[-1, 0] = first[1, steps // 2] = first[0, -1] = True
    return tokens, action, first


@pytest.mark.parametrize(("batch", "steps", "threads"), [(12, 7, 1), (3, 5, 1), (32, 65, 2)])
def test_a_filtered_sequence_and_its_gradients_equal_those_of_steps_on_the_tape(batch, steps, threads):
    """Sequences in fours are one compiled call, others take the plain steps; 32 x 65 x 64 numbers are shared."""
    parallel.use(threads)
    plain, compiled = both(shaken(RSSM(SMALL, 5, 10, seeded())))
    tokens, action, first = sequence(plain, batch, steps)
    start = random_latent(plain, batch)
    slope, uniform = (
        torch.randn(batch, steps, 6, 4, generator=seeded(7)),
        torch.rand(steps, batch, 6, generator=seeded(5)),
    )

    def run(rssm, given):
        seen = rssm.observe(given[0], action, first, start, uniform)
        parts = [seen.latent.deter, (seen.latent.stoch * slope).flatten(2)]
        parts += [(seen.post_logits.log_softmax(-1) * slope).flatten(2), seen.prior_logits.flatten(2)]
        return torch.cat(parts, -1)

    assert_same(plain, compiled, run, tokens.requires_grad_(), tolerance=1e-4 if steps < 10 else 5e-3)


def test_a_bad_value_stays_in_its_own_sequence():
    _, rssm = both(RSSM(SMALL, 5, 10, seeded()))
    tokens, action, first = sequence(rssm, 4, 3)
    tokens[1, 1, 0] = float("nan")
    seen = rssm.observe(tokens, action, torch.zeros_like(first), random_latent(rssm, 4), torch.rand(3, 4, 6))
    bad = ~seen.post_logits.isfinite().flatten(2).all(-1)
    assert bad[1, 1] and bad.sum() == bad[1].sum()


@pytest.mark.parametrize("rows", [1, 2, 9, 40])
@pytest.mark.parametrize("size", ["tiny", "1m"])
@torch.no_grad()
def test_a_step_of_acting_equals_the_layers_one_after_another(rows, size):
    plain, compiled = both(shaken(RSSM(SIZES[size], 17, 48, seeded())))
    tokens = torch.randn(2, rows, 48, generator=seeded(1))
    action = torch.randint(17, (2, rows), generator=seeded(2))
    first = torch.tensor([True] * rows), torch.arange(rows) % 2 == 1
    found, uniform = [], torch.rand(2, rows, 32, generator=seeded(3))
    for rssm in (plain, compiled):
        latent = rssm.initial(rows)
        for t in range(2):
            latent = rssm.observe_step(tokens[t], action[t], first[t], latent, uniform[t])
        found.append(latent)
    torch.testing.assert_close(found[0].deter, found[1].deter, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0].stoch, found[1].stoch)


@pytest.mark.parametrize("rows", [1, 31, 70])
@pytest.mark.parametrize("size", [SIZES["tiny"], dataclasses.replace(SIZES["tiny"], hidden=28)], ids=["eights", "not"])
@torch.no_grad()
def test_an_imagined_step_equals_the_layers_one_after_another(rows, size):
    parallel.use(2)
    plain, compiled = both(shaken(RSSM(size, 17, 48, seeded())))
    start = Latent(torch.randn(rows, 256, generator=seeded(1)).tanh(), plain.initial(rows).stoch + 1.0)
    action, found = torch.randint(17, (3, rows), generator=seeded(2)), []
    uniform = torch.rand(3, rows, 32, generator=seeded(3))
    for rssm in (plain, compiled):
        latent = start
        for t in range(3):
            latent = rssm.imagine_step(latent, action[t], uniform[t])
        found.append(latent)
    torch.testing.assert_close(found[0].deter, found[1].deter, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0].stoch, found[1].stoch)
