"""Requests and tokens per minute: never over the limit in any minute, and no slower than it allows."""

import time
from email.utils import formatdate

import pytest

from lore_datasets.errors import ConfigError
from pipeline.config import AskConfig
from pipeline.llm import backend_from
from pipeline.llm.http.pace import Pace, retry_after
from pipeline.rounds.advise import dry_run, prepare


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def sent(pace, clock, count, tokens, real=None):
    """(times at which requests go out, tokens of each), asked one after the other."""
    out = []
    for _ in range(count):
        clock.now += pace.reserve(tokens)
        out.append(clock.now)
        if real is not None:
            pace.settle(tokens, real)
    return out


def most_in_a_minute(times, weight=1):
    return max(sum(weight for t in times if start <= t < start + 60) for start in times)


@pytest.mark.parametrize("limit", [1, 7, 60, 600])
def test_no_minute_holds_more_requests_than_allowed_and_few_are_wasted(limit):
    clock = Clock()
    times = sent(Pace(limit, 0, clock), clock, 4 * limit + 1, 10)
    assert most_in_a_minute(times) <= limit
    assert times[-1] - times[0] <= 60 * 4 * limit / max(limit * 0.9 - 1, 1) + 1


def test_no_minute_holds_more_tokens_than_allowed_and_unused_ones_come_back():
    clock = Clock()
    times = sent(Pace(0, 6000, clock), clock, 60, 500)
    assert most_in_a_minute(times, 500) <= 6000
    clock = Clock()
    paid_back = sent(Pace(0, 6000, clock), clock, 60, 500, real=50)
    assert paid_back[-1] - paid_back[0] < (times[-1] - times[0]) / 5


def test_one_question_larger_than_the_burst_passes_and_is_paid_off():
    clock = Clock()
    times = sent(Pace(0, 600, clock), clock, 3, 300)
    assert times[1] - times[0] >= 20 and times[2] - times[1] >= 25


def test_without_limits_nothing_waits_and_a_hold_stops_everybody():
    clock = Clock()
    pace = Pace(clock=clock)
    assert pace.reserve(10**9) == 0.0
    pace.hold(7.0)
    assert pace.reserve(1) == pytest.approx(7.0)
    clock.now += 8
    assert pace.reserve(1) == 0.0


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("3", 3, 3), ("99999", 3600, 3600), ("soon", 0, 0), ("-4", 0, 0), ("", 0, 0), ("2.5", 2.5, 2.5), ("7s", 7, 7),
     ("1m30.5s", 90.5, 90.5), ("250ms", 0.25, 0.25), ("2H", 3600, 3600), ("3x", 0, 0), ("1e9", 0, 0), ("\u0663", 0, 0)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds(text, low, high):
    assert low <= retry_after({"retry-after": text}) <= high


def test_milliseconds_are_read_and_go_before_seconds():
    assert retry_after({"retry-after-ms": "1500.5", "retry-after": "9"}) == pytest.approx(1.5005)
    assert retry_after({"retry-after-ms": "soon", "retry-after": "9"}) == 9


def test_retry_after_is_read_as_a_date():
    assert 5 < retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10
    assert retry_after({"retry-after": formatdate(time.time() - 10, usegmt=True)}) == 0.0


def test_the_settings_reach_the_backend_and_its_estimate(env, states, store):
    ask = AskConfig(backend="openai", model="m", base_url="http://127.0.0.1:9/v1", requests_per_minute=6)
    llm = backend_from(ask)
    assert (llm.capabilities.requests_per_minute, llm.capabilities.tokens_per_minute) == (6, 0)
    found = dry_run(prepare(states[:12], env, llm, store, "a"))
    assert found.seconds == pytest.approx(10 * found.new)
    with pytest.raises(ConfigError, match="requests_per_minute"):
        AskConfig(requests_per_minute=-1)
