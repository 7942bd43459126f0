import pytest
import torch

from lore.dreamer.dists import twohot_bins, twohot_weights
from lore.fast import kernels, parallel

ROWS = 37


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(name: str) -> tuple:
    x, scale, deter = normal(ROWS, 20), normal(20, seed=1), normal(ROWS, 24, seed=2).tanh()
    gates, logits = 2 * normal(4, ROWS, 18, seed=3), 2 * normal(ROWS, 6, 5, seed=4)
    uniform, bins = torch.rand(ROWS, 6, generator=torch.Generator().manual_seed(5)), twohot_bins()
    wide = normal(ROWS, 255, seed=6)
    targets = twohot_weights(10 * normal(2, ROWS, seed=7), bins)
    return {
        "linear": (normal(600, 20, seed=9), normal(30, 7, seed=10)[:20].t(), normal(7, seed=11)),
        "weight_gradient": (normal(600, 7, seed=9) / 30, normal(600, 20, seed=10)),
        "gathered_sum": (normal(50, 20), torch.randint(50, (ROWS, 9), generator=torch.Generator().manual_seed(1))),
        "norm_silu_forward": (x, scale),
        "norm_silu_backward": (normal(ROWS, 20, seed=8), x, scale, kernels.norm_silu_forward(x, scale)[1]),
        "mixed_norm_silu": (normal(ROWS, 24), normal(4, ROWS, 6, seed=1), normal(24, seed=2)),
        "gated_forward": (gates, deter),
        "gated_backward": (normal(ROWS, 24), gates, deter),
        "sample_index": (logits, uniform, 0.01),
        "sample_onehot": (logits, uniform, 0.01),
        "softmax_backward": (normal(ROWS, 6, 5), logits, 0.99),
        "twohot_mean": (wide, bins),
        "twohot_loss_forward": (wide, *targets),
        "twohot_loss_backward": (normal(ROWS), wide, wide.logsumexp(-1), *targets),
    }[name]


def test_every_kernel_is_compared_here():
    names = set(kernels.__all__) - {"is_fused"}
    assert {name for name in names if arguments(name)} == names


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", sorted(set(kernels.__all__) - {"is_fused"}))
def test_compiled_loops_and_torch_operations_agree(name, threads, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        monkeypatch.setattr(kernels, "_SHARED", 1)
        compiled = getattr(kernels, name)(*arguments(name))
        monkeypatch.setattr(kernels, "loops", None)
        monkeypatch.setattr(kernels, "_ONEDNN", False)
        plain = getattr(kernels, name)(*arguments(name))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(compiled, plain, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_gradient_of_gathered_rows_is_that_of_torch(threads, monkeypatch):
    weight, ids = arguments("gathered_sum")
    grad, found = normal(ROWS, 20, seed=3), []
    monkeypatch.setattr(kernels, "_SHARED", 1)
    parallel.use(threads)
    for loops in (kernels.loops, None):
        monkeypatch.setattr(kernels, "loops", loops)
        given = weight.clone().requires_grad_()
        found += torch.autograd.grad(kernels.gathered_sum(given, ids), given, grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_a_weight_gradient_with_more_outputs_than_inputs_is_the_same_product():
    grad, x = normal(600, 20) / 30, normal(600, 7, seed=1)
    found = kernels.weight_gradient(grad, x)
    torch.testing.assert_close(found, grad.t() @ x, rtol=2e-5, atol=1e-5)
    assert found.is_contiguous()


@pytest.mark.parametrize("name", ["norm_silu_forward", "gated_forward", "twohot_mean", "twohot_loss_forward"])
def test_a_value_that_is_not_finite_comes_out_not_finite(name):
    first, *rest = arguments(name)
    for bad in (float("nan"), float("inf")):
        poisoned = first.clone()
        poisoned.view(-1)[7 if name == "gated_forward" else 0] = bad
        out = getattr(kernels, name)(poisoned, *rest)
        out = out if isinstance(out, torch.Tensor) else out[0]
        if name == "gated_forward" and bad == float("inf"):
            assert out.isfinite().all(), "an infinite gate input saturates the gate"
        else:
            assert not out.isfinite().all()


def test_draws_are_never_past_the_last_entry_and_skip_impossible_ones():
    logits = torch.tensor([[0.0, -1e9, 3.0, -1e9]]).expand(1000, 4)
    index = kernels.sample_index(logits, torch.linspace(0.0, 1.0 - 2**-24, 1000), 0.0)
    assert set(index.tolist()) == {0, 2}
    assert (index == 0).float().mean().item() == pytest.approx(1 / (1 + torch.tensor(3.0).exp().item()), abs=2e-3)
