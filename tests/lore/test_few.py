import copy

import pytest
import torch

from lore import few
from lore.config import SIZES
from lore.nets import Head
from lore.rssm import RSSM

pytestmark = pytest.mark.skipif(few.loops is None, reason="numba is missing")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """No bias zero, no scale one."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeded(i))
    return module


@pytest.mark.parametrize("rows", [1, 3, 8, 13])
@pytest.mark.parametrize("outputs", [17, 255, 1])
def test_a_head_gives_few_rows_what_it_gives_many(rows, outputs):
    head, x = shaken(Head(40, outputs, 3, 16, seeded())), torch.randn(rows, 40, generator=seeded(1))
    with torch.no_grad():
        assert few.fits(x, 16)
        ours = head(x)
    torch.testing.assert_close(ours, head(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("size", ["tiny", "1m"])
def test_a_step_of_few_rows_equals_the_layers_one_after_another(rows, size, monkeypatch):
    rssm = shaken(RSSM(SIZES[size], 17, 48, seeded()))
    assert isinstance(rssm, RSSM)
    start = rssm.initial(rows)
    tokens = torch.randn(2, rows, 48, generator=seeded(1))
    action = torch.randint(17, (2, rows), generator=seeded(2))
    first = torch.tensor([True] * rows), torch.arange(rows) % 2 == 1
    found = []
    for loops in (few.loops, None):
        monkeypatch.setattr(few, "loops", loops)
        latent, generator = start, seeded(3)
        with torch.no_grad():
            for t in range(2):
                latent = rssm.observe_step(tokens[t], action[t], first[t], latent, generator)
        found.append(latent)
    torch.testing.assert_close(found[0].deter, found[1].deter, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0].stoch, found[1].stoch)


def test_weights_that_changed_are_read_anew_and_a_copy_has_its_own():
    head, x = shaken(Head(8, 5, 2, 8, seeded())), torch.randn(2, 8, generator=seeded(1))
    with torch.no_grad():
        before = head(x)
        other = copy.deepcopy(head)
        head.get_parameter("out.bias").add_(1.0)
        torch._foreach_mul_([head.get_parameter("mlp.norms.0.scale")], 2.0)
        after, kept = head(x), other(x)
    torch.testing.assert_close(after, head(x).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(kept, before) and not torch.allclose(after, before + 1.0)


def test_an_observation_that_is_not_finite_is_seen():
    head = shaken(Head(8, 5, 2, 8, seeded()))
    with torch.no_grad():
        assert not head(torch.tensor([[float("nan"), *[0.0] * 7], [0.0] * 8])).isfinite().all()
