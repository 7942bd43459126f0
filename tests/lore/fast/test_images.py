import pytest
import torch

from lore.dreamer.nets import ImageDecoder, ImageEncoder
from lore.fast import parallel
from tests.lore.fast.forms import assert_same, both, seeded, shaken

pytest.importorskip("numba")


def frames(rows: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (rows, side, side, 3), generator=seeded(seed), dtype=torch.uint8)


@pytest.mark.parametrize(("depth", "side", "mults", "rows", "threads"), [
    (4, 16, (2, 3), 5, 1), (3, 16, (1, 5), 5, 1), (4, 32, (2, 3, 4, 4), 3, 1), (4, 32, (2, 4), 12, 3),
    (8, 4, (5,), 2, 1),
])  # fmt: skip
def test_the_encoder_and_its_gradients_equal_those_of_torch(depth, side, mults, rows, threads):
    parallel.use(threads)
    plain, compiled = both(shaken(ImageEncoder(depth, side, mults, seeded())))
    assert_same(plain, compiled, lambda encoder, given: encoder(frames(rows, side)), tolerance=1e-3)


def test_among_equal_pixels_the_first_one_gets_the_gradient():
    plain, compiled = both(shaken(ImageEncoder(4, 16, (2, 2), seeded())))
    image = frames(3, 16)
    image[1] = 7  # inside an even picture all four pixels of a pool are equal
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), plain(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "side", "mults", "rows", "threads"), [
    (4, 16, (2, 4), 5, 1), (4, 32, (2, 3, 4, 4), 3, 1), (8, 32, (1, 4), 9, 3), (2, 8, (4,), 3, 1),
])  # fmt: skip
def test_the_decoder_its_loss_and_their_gradients_equal_those_of_torch(depth, side, mults, rows, threads):
    parallel.use(threads)
    plain, compiled = both(shaken(ImageDecoder(64, 8, depth, 16, 8, side, mults, seeded())))
    features = torch.randn(rows, 72, generator=seeded(1)).requires_grad_()
    assert_same(plain, compiled, lambda decoder, given: decoder.loss(given[0], frames(rows, side)), features,
                tolerance=2e-3)  # fmt: skip
    with torch.no_grad():
        split = plain.split(features)
        torch.testing.assert_close(compiled(*split), plain(*split), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_seen(bad):
    _, encoder = both(ImageEncoder(4, 16, (2, 2), seeded()))
    _, decoder = both(ImageDecoder(64, 8, 4, 16, 8, 16, (2, 2), seeded()))
    features = torch.randn(2, 72, generator=seeded(1))
    with torch.no_grad():
        encoder.convs[0].weight[3, 1, 2, 2] = bad
        decoder.convs[0].weight[0, 1, 2, 2] = bad
        assert not encoder(frames(2, 16)).isfinite().all()
        assert not decoder.loss(features, frames(2, 16)).isfinite().all()


def test_a_stage_follows_its_weights_when_they_are_changed_in_place():
    plain, compiled = both(shaken(ImageEncoder(4, 16, (2, 2), seeded())))
    image = frames(2, 16)
    with torch.no_grad():
        before = compiled(image)
        for encoder in (plain, compiled):
            encoder.convs[0].bias += 1.0
            torch._foreach_mul_([encoder.norms[1].scale], 0.5)
        after = compiled(image)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, plain(image).detach(), rtol=1e-4, atol=1e-4)
