"""What a round of questions says when they have been asked: what waits for answers by file, what was paid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.terminal import current
from lore_datasets.errors import Waiting

if TYPE_CHECKING:
    from flows.config import AdviceJob
    from pipeline.llm.base import LLM
    from pipeline.llm.journal.journal import Journal
    from pipeline.rounds.ask import ShardResult
    from pipeline.rounds.round import Round

__all__ = ["exchange", "paid"]


def exchange(llm: LLM, job: AdviceJob) -> None:
    """Write the questions that wait for answers by file and say what the result files hold; Waiting unless all are
    answered or ``ask.partial`` is set.
    """
    from pipeline.llm.backends.file import FileAdviser

    if not isinstance(llm, FileAdviser):
        return
    made, unknown = llm.write(), llm.unknown()
    for note in llm.notes:
        current().say(f"  note: {note}")
    if unknown:
        current().say(f"  note: {len(unknown):,} answers of unknown questions, such as {unknown[0][:12]}")
    current().say(f"  {llm.said}")
    if llm.waiting and not (job.ask.partial and llm.used):
        raise Waiting(
            f"{llm.said}; the questions are in {len(made)} files in {llm.folder}",
            kept="every answer",
            hint=f"put results into {llm.folder / 'answers'} and run the same command, or add --ask.partial",
        )


def paid(now: Round, results: Sequence[ShardResult], journal: Journal) -> str:
    """One line: what was asked in this round, what it cost, what the journal has paid in all."""
    before, after = now.budget.paid_before, journal.paid()
    asked = now.first.stats.asked + sum(result.stats.asked for result in results)
    return (
        f"  asked {asked:,} questions for {after - before:.4f} USD; paid in all {after:.4f} USD, "
        f"{before:.4f} USD before ({journal.path})"
    )
