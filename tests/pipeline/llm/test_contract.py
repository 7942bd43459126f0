"""The contract of advisers: capabilities are frozen, a class with ``complete`` alone is one, nothing is guessed."""

import dataclasses
import re
from pathlib import Path

import pytest

from lore_datasets.errors import ConfigError
from pipeline.llm.base import LLM, Capabilities, Prompt, Response, as_llm, complete
from pipeline.llm.journal.journal import Journal

ROOT = Path(__file__).parents[3]


class Plain:
    """What a user may write: a name and ``complete``."""

    name = "plain"

    def complete(self, prompts):
        return [Response(f"to {prompt.user}", self.name) for prompt in prompts]


PROMPTS = [Prompt("prior", "s", f"state {i}") for i in range(40)]


def test_a_class_with_complete_alone_is_an_adviser():
    llm = as_llm(Plain())
    assert isinstance(llm, LLM) and as_llm(llm) is llm and llm.capabilities == Capabilities()
    assert [r.text for r in Journal().ask(llm, PROMPTS)] == [f"to state {i}" for i in range(40)]


def test_its_capabilities_or_attributes_of_their_names_count():
    class Old(Plain):
        parameters, reads_state, chunk = {"t": 1}, True, 7

    class New(Plain):
        capabilities = Capabilities(kinds=("prior",), parameters={"t": 1})

    old, new = as_llm(Old()).capabilities, as_llm(New()).capabilities
    assert (old.parameters, old.reads_state, old.chunk) == ({"t": 1}, True, 7)
    assert new == New.capabilities
    keys = {Journal.keys(as_llm(each), PROMPTS[:1])[0] for each in (Plain(), Old(), New())}
    assert len(keys) == 3


@pytest.mark.parametrize("what", [object(), type("NoName", (), {"complete": lambda self, prompts: []})()])
def test_what_is_no_adviser_is_refused(what):
    with pytest.raises(ConfigError, match="is no adviser"):
        as_llm(what)


def test_capabilities_cannot_be_changed_from_outside():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Capabilities().chunk = 3


def test_an_adviser_that_stops_early_leaves_errors_and_no_holes():
    class Early:
        name, capabilities = "early", Capabilities()

        def answer(self, prompts, take, stop):
            take([(0, Response("first"))])

    assert [r.error for r in complete(Early(), PROMPTS[:3])] == [None, "not asked", "not asked"]


def test_no_code_reads_an_attribute_that_an_adviser_may_lack_or_sets_one():
    found = []
    for folder in ("pipeline", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            found += re.findall(r"(?:getattr|setattr|hasattr)\((?:\w+\.)*(?:llm|adviser|backend)\b[^)]*\)", text)
    assert not found
