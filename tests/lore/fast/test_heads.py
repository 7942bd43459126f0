import copy

import pytest
import torch

from lore.dreamer.nets import Head, TwoHotHead
from lore.fast import parallel
from lore.fast.accelerate import compile_modules
from tests.lore.fast.forms import assert_same, both, seeded, shaken

pytest.importorskip("numba")


@pytest.mark.parametrize("rows", [1, 3, 8, 13, 77])
@pytest.mark.parametrize(("layers", "outputs"), [(3, 255), (1, 1), (2, 24), (3, 17)])
def test_a_compiled_head_equals_its_layers_forward_and_back(layers, outputs, rows):
    plain, compiled = both(shaken(Head(40, outputs, layers, 16, seeded())))
    x = torch.randn(rows, 40, generator=seeded(1)).requires_grad_()
    assert_same(plain, compiled, lambda head, given: head(given[0]), x)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-4, atol=1e-5)


def test_a_compiled_head_shared_between_threads_equals_its_layers():
    parallel.use(3)
    plain, compiled = both(shaken(Head(16, 5, 2, 32, seeded())))
    x = torch.randn(parallel.SHARED // 32 + 7, 16, generator=seeded(1)).requires_grad_()
    assert_same(plain, compiled, lambda head, given: head(given[0]), x, tolerance=2e-3)


def test_states_that_lie_time_major_in_memory_are_taken_as_they_lie():
    plain, compiled = both(shaken(TwoHotHead(40, 2, 16, seeded())))
    x = torch.randn(5, 3, 40, generator=seeded(1)).transpose(0, 1).requires_grad_()
    target = torch.randn(3, 5, generator=seeded(2))

    def run(head, given):
        logits = head(given[0])
        return head.loss(logits, target, -target)

    assert_same(plain, compiled, run, x)
    with torch.no_grad():
        torch.testing.assert_close(compiled.mean(compiled(x)), plain.mean(plain(x)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 3])
def test_two_hot_mean_and_loss_equal_those_of_torch(threads):
    parallel.use(threads)
    plain, compiled = both(TwoHotHead(8, 1, 8, seeded()))
    rows = parallel.SHARED // 255 + 5
    logits = torch.randn(rows, 255, generator=seeded(1)).requires_grad_()
    target = 10 * torch.randn(2, rows, generator=seeded(2))
    assert_same(plain, compiled, lambda head, given: head.loss(given[0], *target), logits)
    near = logits.detach() - 0.2 * plain.bins.sign() * plain.bins.abs().log1p()  # the far bins are not all there is
    torch.testing.assert_close(compiled.mean(near), plain.mean(near), rtol=1e-4, atol=1e-2)
    assert compiled.mean(torch.zeros(3, 255)).abs().max() == 0


def test_weights_that_changed_are_read_anew_and_a_copy_has_its_own():
    head, x = shaken(Head(8, 5, 2, 8, seeded())), torch.randn(2, 8, generator=seeded(1))
    compile_modules(head)
    with torch.no_grad():
        before = head(x)
        other = copy.deepcopy(head)
        head.get_parameter("out.bias").add_(1.0)
        torch._foreach_mul_([head.get_parameter("mlp.norms.0.scale")], 2.0)
        after, kept = head(x), other(x)
    torch.testing.assert_close(after, head(x).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(kept, before) and not torch.allclose(after, before + 1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_comes_out_not_finite(bad):
    head = shaken(TwoHotHead(8, 2, 8, seeded()))
    compile_modules(head)
    with torch.no_grad():
        assert not head(torch.tensor([[bad, *[0.0] * 7], [0.0] * 8])).isfinite().all()
        logits = torch.zeros(2, 255)
        logits[1, 3] = bad
        assert head.mean(logits).isfinite().tolist() == [True, False]
        assert head.loss(logits, torch.ones(2)).isfinite().tolist() == [True, False]


def test_features_that_need_no_gradient_get_none():
    head = shaken(Head(16, 3, 1, 8, seeded()))
    compile_modules(head)
    head(torch.randn(5, 16, generator=seeded(1))).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
