"""When a run of a MiniGrid study reached 0.9 success."""

from benchmarks.success import steps_to


def run(won):
    return {
        "steps": 999,
        "episodes": {"step": list(range(10, 10 * len(won) + 10, 10)), "unlocked": [[0] * w for w in won]},
    }


def test_a_run_reaches_it_where_18_of_its_last_20_episodes_succeeded():
    assert steps_to(run([0] * 5 + [1] * 18)) == 230 and steps_to(run([1] * 18)) == 180
    assert steps_to(run([1] * 17 + [0] * 30 + [1] * 20)) == 650


def test_a_run_that_never_did_or_ended_no_episode_is_censored():
    assert steps_to(run([1, 0] * 40)) is None and steps_to(run([])) is None
