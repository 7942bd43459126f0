import pytest
import torch

from lore.fast import frames, kernels

pytestmark = pytest.mark.skipif(frames.loops is None, reason="numba is missing")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(monkeypatch, stage, threads, inputs):
    """[output, gradients] of the compiled loops, then of torch's operations."""
    found = []
    for loops in (frames.loops, None):
        with monkeypatch.context() as patch:
            patch.setattr(frames, "loops", loops)
            patch.setattr(kernels, "_SHARED", 1)
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                out = stage(*inputs)
                grads = torch.autograd.grad(
                    out, [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad], normal(*out.shape)
                )
            finally:
                torch.set_num_threads(before)
            found.append([out, *grads])
    return found


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("side", "inputs", "outputs"), [(16, 3, 8), (8, 8, 12), (16, 12, 16), (4, 16, 16), (6, 5, 3), (2, 4, 40)]
)
def test_a_stage_of_the_encoder_and_its_gradients_equal_those_of_torch(monkeypatch, side, inputs, outputs, threads):
    x = normal(5, side, side, inputs).requires_grad_()
    weight = (normal(outputs, inputs, 5, 5, seed=1) / (25 * inputs) ** 0.5).requires_grad_()
    bias, scale = normal(outputs, seed=2).requires_grad_(), normal(outputs, seed=3).requires_grad_()
    ours, theirs = both(monkeypatch, frames.pool_stage, threads, (x, weight, bias, scale))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_first_stage_takes_bytes_and_ties_go_to_the_first_pixel(monkeypatch):
    image = torch.randint(256, (3, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image[1] = 7  # inside an even picture all four pixels of a pool are equal
    weight, scale = (normal(8, 3, 5, 5, seed=1) / 8).requires_grad_(), torch.ones(8, requires_grad=True)
    bias = torch.zeros(8, requires_grad=True)
    ours, theirs = both(monkeypatch, frames.pool_stage, 1, (image, weight, bias, scale))
    for one, other in zip(ours[:1] + ours[2:], theirs[:1] + theirs[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    even = image[1:2].clone().fill_(9)
    assert torch.isfinite(frames.pool_stage(even, weight, bias, scale)).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("side", "inputs", "outputs"), [(4, 16, 16), (8, 16, 12), (16, 12, 8), (8, 8, 3), (3, 5, 4)])
def test_a_stage_of_the_decoder_and_its_gradients_equal_those_of_torch(
    monkeypatch, side, inputs, outputs, normed, threads
):
    x = normal(5, side, side, inputs).requires_grad_()
    phases = (normal(4 * outputs, inputs, 3, 3, seed=1) / (9 * inputs) ** 0.5).requires_grad_()
    bias = normal(4 * outputs, seed=2).requires_grad_()
    scale = normal(outputs, seed=3).requires_grad_() if normed else None
    ours, theirs = both(monkeypatch, frames.up_stage, threads, (x, phases, bias, scale))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_loss_of_frames_and_its_gradient_equal_those_of_torch(monkeypatch):
    logits = (3 * normal(4, 48)).requires_grad_()
    target = torch.randint(256, (4, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    ours, theirs = both(monkeypatch, frames.frame_loss, 3, (logits, target))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pixel_or_weight_that_is_not_finite_comes_out_not_finite(bad):
    x, weight = normal(2, 8, 8, 3), normal(8, 3, 5, 5, seed=1)
    phases, bias, scale = normal(16, 3, 3, 3), torch.zeros(8), torch.ones(8)
    poisoned = x.clone()
    poisoned[1, 4, 4, 1] = bad
    for where in (poisoned, x):
        weights = weight.clone()
        weights[3, 1, 2, 2] = bad if where is x else weights[3, 1, 2, 2]
        assert not frames.pool_stage(where, weights, bias, scale).isfinite().all()
    for normed in (None, torch.ones(4)):
        assert not frames.up_stage(poisoned, phases, torch.zeros(16), normed).isfinite().all()


def test_a_stage_follows_its_weights_when_they_are_changed_in_place():
    x, weight, bias, scale = normal(1, 8, 8, 3), normal(8, 3, 5, 5, seed=1), torch.zeros(8), torch.ones(8)
    before = frames.pool_stage(x, weight, bias, scale)
    bias += 1.0
    after = frames.pool_stage(x, weight, bias, scale)
    torch._foreach_mul_([scale], 0.5)
    assert not torch.equal(before, after) and not torch.equal(after, frames.pool_stage(x, weight, bias, scale))
    torch.testing.assert_close(after, frames.pool_stage(x, weight.clone(), bias.clone(), torch.ones(8)))
