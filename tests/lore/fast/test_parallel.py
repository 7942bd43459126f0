"""Pieces of an update side by side: in order, one CPU thread each, errors raised when all have ended."""

import threading
import time

import pytest
import torch

from lore.fast import parallel
from lore.fast.parallel import run_together, shares, threads

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)


def test_rows_are_cut_into_one_range_per_thread_that_cover_all(two_threads):
    assert shares(7, CPU) == [slice(0, 3), slice(3, 7)]
    parallel.use(3)
    assert shares(7, CPU) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert shares(1, CPU) == [slice(0, 1)] and shares(7, torch.device("meta")) == [slice(0, 7)]


def test_works_meet_results_come_in_order_and_each_has_one_thread(two_threads):
    meet = threading.Barrier(2, timeout=20)

    def work(name):
        meet.wait()  # only works that run at the same time pass
        return name, torch.get_num_threads() * threads(), threading.get_ident()

    first, second = run_together([lambda: work("a"), lambda: work("b")])
    assert first[:2] == ("a", 1) and second[:2] == ("b", 1) and first[2] != second[2]
    assert torch.get_num_threads() == threads() == 2


def test_an_error_waits_for_the_other_work_and_leaves_the_threads_as_they_were(two_threads):
    done = []

    def slow():
        time.sleep(0.2)
        done.append(1)

    def fails():
        raise ValueError("no")

    for works in ([fails, slow], [slow, fails]):
        with pytest.raises(ValueError, match="no"):
            run_together(works)
        assert done.pop() == 1 and torch.get_num_threads() == 2


def test_autocast_holds_in_every_thread(two_threads):
    x = torch.ones(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert [y.dtype for y in run_together([lambda: x @ x, lambda: x @ x])] == [torch.bfloat16] * 2
    assert [y.dtype for y in run_together([lambda: x @ x, lambda: x @ x])] == [torch.float32] * 2


def test_what_is_left_goes_to_the_thread_that_is_free(two_threads):
    release, done = threading.Event(), []

    def first():
        release.wait(20)  # ends only when others have done all the rest
        return threading.get_ident()

    def other(i):
        done.append(i)
        if len(done) == 3:
            release.set()
        return threading.get_ident()

    owner, *rest = run_together([first, *(lambda i=i: other(i) for i in range(3))])
    assert done == [0, 1, 2] and len({owner, *rest}) == 2 and len(set(rest)) == 1


def test_one_thread_does_all_works_in_the_caller(two_threads):
    parallel.use(1)
    assert run_together([threading.get_ident] * 3) == [threading.get_ident()] * 3
