import pytest
import torch

from lore.dreamer.nets import Linear, NormAct
from lore.dreamer.symbols import OneHotLinear
from lore.fast import parallel
from tests.lore.fast.forms import assert_same, both, seeded, shaken

pytest.importorskip("numba")


@pytest.mark.parametrize(("inputs", "outputs"), [(20, 7), (7, 20)])
@pytest.mark.parametrize("rows", [5, 600])
def test_a_dense_layer_and_its_gradients_equal_those_of_torch(rows, inputs, outputs):
    plain, compiled = both(shaken(Linear(inputs, outputs, seeded())))
    x = torch.randn(2, rows, inputs, generator=seeded(1)).requires_grad_()
    assert_same(plain, compiled, lambda layer, given: layer(given[0]), x)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "threads"), [(37, 1), (37, 3), (parallel.SHARED // 20 + 3, 3)])
def test_norm_and_activation_equal_those_of_torch(rows, threads):
    parallel.use(threads)
    plain, compiled = both(shaken(NormAct(20)))
    x = torch.randn(rows, 20, generator=seeded(1)).requires_grad_()
    assert_same(plain, compiled, lambda norm, given: norm(given[0]), x, tolerance=1e-4 if rows < 100 else 2e-3)
    half = torch.randn(3, 20, generator=seeded(2)).bfloat16()
    torch.testing.assert_close(compiled(half), plain(half))


@pytest.mark.parametrize(("rows", "threads"), [(37, 1), (37, 2), (800, 2)])
def test_the_gradient_of_gathered_rows_is_that_of_torch(rows, threads):
    parallel.use(threads)
    plain, compiled = both(shaken(OneHotLinear(9, 5, 4, 20, seeded())))
    ids, vector = torch.randint(5, (rows, 9), generator=seeded(1)), torch.randn(rows, 4, generator=seeded(2))
    assert_same(plain, compiled, lambda layer, given: layer(ids, given[0]), vector.requires_grad_(), tolerance=1e-3)


def test_a_value_that_is_not_finite_comes_out_not_finite():
    _, norm = both(NormAct(20))
    for bad in (float("nan"), float("inf")):
        x = torch.randn(3, 20, generator=seeded(1))
        x[1, 0] = bad
        assert norm(x).isfinite().all(-1).tolist() == [True, False, True]
