import pytest
import torch

from lore.fast import parallel


@pytest.fixture(autouse=True)
def _threads_as_before():
    """A run divides threads for its process; no test finds what another left."""
    before = torch.get_num_threads()
    parallel.use(0)
    yield
    torch.set_num_threads(before)
    parallel.use(0)
