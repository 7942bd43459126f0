"""The journal: written before used, never asked twice, failures never served; threads, interrupts, limits."""

import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lore_datasets.errors import CorruptArtifact, LimitReached, LoreError, NewerSchema, ServiceError, Stopped
from pipeline.llm.base import Capabilities, Completing, Prompt, Response
from pipeline.llm.journal.budget import MAX_FAILURES, Budget, JournalStats
from pipeline.llm.journal.journal import Journal


def questions(n, kind="prior"):
    schema = {"type": "object"}
    return [Prompt(kind, "system", f"state {i}", schema, ("a", "b"), "t", bytes([i % 256])) for i in range(n)]


def echo(prompt):
    return Response(f"answer to {prompt.user}", model="echo-1", tokens_in=3, tokens_out=2, price_usd=0.01)


def test_the_same_question_is_never_asked_twice_across_runs(tmp_path, scripted):
    llm = scripted(echo)
    with Journal(tmp_path / "j.sqlite") as journal:
        first = journal.ask(llm, questions(5))
    with Journal(tmp_path / "j.sqlite") as journal:
        stats = JournalStats()
        assert journal.ask(llm, questions(8), stats=stats)[:5] == first
    assert len(llm.asked) == 8 and (stats.served, stats.asked) == (5, 3)


def test_equal_questions_in_one_call_are_asked_once_and_answered_all(scripted):
    llm = scripted(echo)
    answers = Journal().ask(llm, [*questions(2), *questions(2)])
    assert len(llm.asked) == 2 and answers[:2] == answers[2:]


@pytest.mark.parametrize("change", ["user", "system", "schema", "max_tokens", "kind"])
def test_whatever_an_answer_depends_on_is_part_of_the_key(scripted, change):
    journal, llm = Journal(), scripted(echo)
    journal.ask(llm, questions(1))
    other = {"user": "x", "system": "x", "schema": None, "max_tokens": 9, "kind": "plan"}[change]
    journal.ask(llm, [replace(questions(1)[0], **{change: other})])
    assert len(llm.asked) == 2


def test_name_and_parameters_are_part_of_the_key_and_the_state_only_for_advisers_that_read_it(scripted):
    journal = Journal()
    prompt, other = questions(1)[0], replace(questions(1)[0], state=b"other")
    for llm in (scripted(echo), scripted(echo, name="b"), scripted(echo, parameters={"t": 1})):
        journal.ask(llm, [prompt, other])
        assert len(llm.asked) == 1
    reader = scripted(echo, name="r", reads_state=True)
    journal.ask(reader, [prompt, other])
    assert len(reader.asked) == 2


def test_a_failure_is_kept_and_never_served(scripted):
    journal, bad = Journal(), {"on": True}
    llm = scripted(lambda p: Response("", finish="error", error="HTTP 500") if bad["on"] else echo(p))
    assert journal.ask(llm, questions(1))[0].error == "HTTP 500"
    assert len(journal) == 0 and journal.failures()[0][1].error == "HTTP 500"
    bad["on"] = False
    assert journal.ask(llm, questions(1))[0].error is None


def test_five_failures_in_a_row_stop_the_run_with_everything_kept(scripted):
    journal = Journal()
    quota = Response("", finish="error", error="HTTP 429")
    llm = scripted(lambda p: echo(p) if int(p.user.split()[1]) < 213 else quota, chunk=1)
    with pytest.raises(ServiceError, match="partial: 5 questions in a row failed: HTTP 429"):
        journal.ask(llm, questions(500))
    assert len(journal) == 213 and len(llm.asked) == 213 + MAX_FAILURES
    again = scripted(echo)
    assert len(journal.ask(again, questions(500))) == 500
    assert len(again.asked) == 287


def test_an_interrupt_loses_no_answer_that_was_given(tmp_path, scripted):
    def until_seven(prompt):
        if prompt.user == "state 7":
            raise KeyboardInterrupt
        return echo(prompt)

    journal = Journal(tmp_path / "j.sqlite")
    with pytest.raises(KeyboardInterrupt):
        journal.ask(scripted(until_seven, chunk=1), questions(20))
    assert len(journal) == 7
    again = scripted(echo)
    journal.ask(again, questions(20))
    assert len(again.asked) == 13


def test_answers_that_come_one_by_one_in_any_order_are_each_written(scripted):
    class Reversed:
        name, capabilities = "reversed", Capabilities()

        def answer(self, prompts, take, stop):
            for i in reversed(range(len(prompts))):
                if i == 2:
                    raise KeyboardInterrupt
                take([(i, echo(prompts[i]))])

    journal = Journal()
    with pytest.raises(KeyboardInterrupt):
        journal.ask(Reversed(), questions(8))
    assert len(journal) == 5


def test_stop_ends_the_asking_between_two_chunks_with_everything_kept(scripted):
    journal, llm = Journal(), scripted(echo, chunk=2)
    with pytest.raises(Stopped, match="asking was stopped") as stop:
        journal.ask(llm, questions(9), stop=lambda: len(journal) >= 4)
    assert len(llm.asked) == 4 == len(journal) and "4 answers" in stop.value.kept
    assert len(journal.ask(llm, questions(9))) == 9 == len(llm.asked)


def test_a_limit_on_requests_stops_before_the_next_question(scripted):
    journal, llm = Journal(), scripted(echo)
    with pytest.raises(LimitReached, match="partial") as error:
        journal.ask(llm, questions(10), budget=Budget(max_requests=4))
    assert len(llm.asked) == 4 and "4 answers" in error.value.kept
    assert len(journal.ask(llm, questions(10), budget=Budget(max_requests=6))) == 10
    assert len(llm.asked) == 10


def test_a_limit_on_cost_counts_the_estimate_before_and_the_price_after(scripted):
    llm = scripted(echo, chunk=1)
    with pytest.raises(ServiceError, match="limit"):
        Journal().ask(llm, questions(10), budget=Budget(max_cost=0.055, estimate=lambda p: 0.02))
    assert len(llm.asked) == 4  # 0.04 spent; a fifth might have cost 0.02


def test_threads_that_ask_the_same_questions_share_the_answers(tmp_path, scripted):
    journal, llm, out = Journal(tmp_path / "j.sqlite"), scripted(echo, chunk=3), []
    threads = [threading.Thread(target=lambda: out.append(journal.ask(llm, questions(60)))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(out) == 4 and all(answers == out[0] for answers in out)
    assert len(llm.asked) == 60 == len(journal)


def test_a_backend_that_leaves_a_hole_is_a_service_error(scripted):
    class Hole(Completing):
        name = "hole"

        def complete(self, prompts):
            return []

    with pytest.raises(ServiceError, match="0 of 2"):
        Journal().ask(Hole(), questions(2))


def test_a_file_that_is_no_journal_and_one_of_a_newer_program_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"not sqlite" * 100)
    with pytest.raises(CorruptArtifact):
        Journal(tmp_path / "x")
    with sqlite3.connect(tmp_path / "new") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(NewerSchema):
        Journal(tmp_path / "new")
    assert issubclass(NewerSchema, LoreError)


@pytest.fixture
def written(tmp_path, scripted):
    with Journal(tmp_path / "j.sqlite") as journal:
        return tmp_path / "j.sqlite", journal.ask(scripted(echo), questions(30))


def test_a_flipped_bit_anywhere_gives_the_same_answers_or_is_named_as_damage(written, scripted):
    path, answers = written
    whole, rng = path.read_bytes(), random.Random(0)
    named = 0
    for _ in range(80):
        damaged = bytearray(whole)
        at = rng.randrange(len(whole) - 1)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
        try:
            with Journal(path) as journal:
                assert journal.ask(scripted(echo), questions(30)) == answers, at
        except LoreError as error:
            assert error.kind in ("corrupt", "newer"), (at, error)
            named += 1
    assert named > 5


def test_an_answer_changed_in_its_row_is_refused_and_named_with_what_to_do(written, scripted):
    path, _ = written
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answer SET response = replace(response, 'state 7', 'state 8')")
    db.close()
    with Journal(path) as journal, pytest.raises(CorruptArtifact, match="does not have its digest") as error:
        journal.ask(scripted(echo), questions(8)[7:])
    assert "all other answers" in error.value.kept and "DELETE FROM answer" in error.value.hint


def test_a_journal_of_before_digests_is_given_them_and_serves_what_it_had(written, scripted):
    path, answers = written
    with sqlite3.connect(path) as db:
        db.executescript("ALTER TABLE answer DROP COLUMN digest; PRAGMA user_version=1")
    db.close()
    llm = scripted(echo)
    with Journal(path) as journal:
        assert journal.ask(llm, questions(30)) == answers and not llm.asked
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT COUNT(*) FROM answer WHERE length(digest) = 64").fetchone() == (30,)
    db.close()


def test_estimates_of_other_threads_are_waited_for_before_money_counts_as_spent(scripted):
    def slowly(prompt):
        time.sleep(0.005)
        return echo(prompt)

    journal, budget = Journal(), Budget(max_cost=1.0, estimate=lambda p: 0.2)
    kinds = ("prior", "plan", "skills")
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(journal.ask, scripted(slowly, chunk=1), questions(10, k), budget=budget) for k in kinds]
        assert [len(each.result(20)) for each in asked] == [10, 10, 10]
    assert budget.cost == pytest.approx(0.3)


def test_a_batch_that_cannot_be_written_down_is_named(tmp_path):
    with Journal(tmp_path / "j.sqlite") as journal:
        journal._db.execute("DROP TABLE batch")
        with pytest.raises(LoreError, match="no such table"):
            journal.put_batch("batches/1", "gemini:m", ["a"])
