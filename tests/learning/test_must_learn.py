"""Must-learn checks on tiny games, with the controls that must stay at chance: two of three seeds have to pass."""

import pytest
from checks import CHECKS

SEEDS = (0, 1, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CHECKS)
def test_two_of_three_seeds_pass(name):
    rows = []
    for seed in SEEDS:
        rows.append(CHECKS[name](seed))
        passed = sum(row["passed"] for row in rows)
        if passed >= 2 or len(rows) - passed >= 2:  # the third seed would change nothing
            break
    assert passed >= 2, rows
