from collections.abc import Callable

import numpy as np
import pytest
import torch

from lore.fast import parallel
from lore.replay.ring import Replay


@pytest.fixture(autouse=True)
def _threads_as_before():
    """A run divides threads for its process; no test finds what another left."""
    before = torch.get_num_threads()
    parallel.use(0)
    yield
    torch.set_num_threads(before)
    parallel.use(0)


@pytest.fixture
def held() -> Callable[[Replay], dict[str, np.ndarray]]:
    """What gives copies of all records that a replay holds, in the form that it is restored from."""

    def of(replay: Replay) -> dict[str, np.ndarray]:
        counts = np.minimum(replay.written, replay.slots).tolist()
        streams = [replay.records(stream, np.arange(n), tuple(replay.fields)) for stream, n in enumerate(counts)]
        return {f"{stream}/{name}": value for stream, found in enumerate(streams) for name, value in found.items()}

    return of
