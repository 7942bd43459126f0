import copy

import pytest
import torch

from lore.config import SIZES
from lore.dreamer.nets import Head
from lore.dreamer.rssm import RSSM
from lore.dreamer.types import Latent
from lore.fast import compiled, kernels, parallel

pytestmark = pytest.mark.skipif(compiled.loops is None, reason="numba is missing")


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
        assert compiled.fits(x, 16)
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
    for loops in (compiled.loops, None):
        monkeypatch.setattr(compiled, "loops", loops)
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("layers", "outputs"), [(3, 255), (1, 1), (2, 24)])
def test_a_compiled_head_has_the_gradients_of_its_layers(layers, outputs, threads, monkeypatch):
    head, found = shaken(Head(40, outputs, layers, 16, seeded())), []
    grad = torch.randn(77, outputs, generator=seeded(2))
    monkeypatch.setattr(kernels, "_SHARED", 1)
    parallel.use(threads)
    for loops in (compiled.heads, None):
        monkeypatch.setattr(compiled, "heads", loops)
        x = torch.randn(77, 40, generator=seeded(1)).requires_grad_()
        out = head(x)
        found.append([out, *torch.autograd.grad(out, [x, *head.parameters()], grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert one.is_contiguous()


def test_features_that_need_no_gradient_get_none():
    head = shaken(Head(16, 3, 1, 8, seeded()))
    head(torch.randn(5, 16, generator=seeded(1))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


@pytest.mark.parametrize("rows", [1, 31, 70])
def test_an_imagined_step_of_any_number_of_rows_equals_the_layers_one_after_another(rows, monkeypatch):
    rssm = shaken(RSSM(SIZES["tiny"], 17, 48, seeded()))
    assert isinstance(rssm, RSSM)
    start = Latent(torch.randn(rows, 256, generator=seeded(1)).tanh(), rssm.initial(rows).stoch + 1.0)
    action, found = torch.randint(17, (3, rows), generator=seeded(2)), []
    parallel.use(2)
    for loops in (compiled.loops, None):
        monkeypatch.setattr(compiled, "loops", loops)
        latent, generator = start, seeded(3)
        with torch.no_grad():
            for t in range(3):
                latent = rssm.imagine_step(latent, action[t], generator)
        found.append(latent)
    torch.testing.assert_close(found[0].deter, found[1].deter, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[0].stoch, found[1].stoch)


def test_threads_go_to_the_loops_of_a_small_learner_and_to_torch_for_a_large_one():
    cpu = torch.device("cpu")
    compiled.divide_threads(3, SIZES["tiny"], cpu)
    assert (parallel.threads(), torch.get_num_threads()) == (3, 1)
    compiled.divide_threads(0, SIZES["tiny"], cpu)
    assert parallel.threads() == 3
    compiled.divide_threads(2, SIZES["12m"], cpu)
    assert (parallel.threads(), torch.get_num_threads()) == (2, 2)
