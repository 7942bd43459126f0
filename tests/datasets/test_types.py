import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, LoreError, NotFound, shown
from lore_datasets.testing import random_states
from lore_datasets.types import ArtifactRef, SymbolicState

ENV = get_environment("crafter")


def test_packed_states_come_back_equal_and_take_the_bytes_that_the_vocabulary_implies(rng):
    states = random_states(ENV, 20, rng)
    packed = states.pack()
    assert packed.shape == (20, ENV.layout.size) and ENV.layout.size == 63 + 12 + 4 + 3 + 22
    assert SymbolicState.unpack(packed, ENV.layout) == states
    assert SymbolicState.stack([states[i] for i in range(20)]) == states


def test_a_packed_state_of_another_size_or_type_is_refused(rng):
    packed = random_states(ENV, 2, rng).pack()
    for wrong in (packed[:, 1:], packed.astype(np.int16)):
        with pytest.raises(BadInput, match="packed state"):
            SymbolicState.unpack(wrong, ENV.layout)


def test_references_are_read_and_written_the_same_way():
    digest = "0123456789ab" + "f" * 52
    assert str(ArtifactRef("wood.talk", 3, digest)) == "wood.talk@v3#0123456789ab"
    assert ArtifactRef.parse("wood.talk@v3#0123456789ab") == ("wood.talk", 3, "0123456789ab")
    assert ArtifactRef.parse("wood.talk") == ("wood.talk", None, None)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_slug_reference_or_refused(text):
    try:
        name, _, _ = ArtifactRef.parse(text)
    except BadInput as error:
        assert error.exit_code == 3 and str(error).isascii()
    else:
        assert name.isascii() and not set(name) & set("/\\ \n\0:") and ".." not in name


@pytest.mark.parametrize(
    "text", ["../x", "/abs", "a/b", "con", "é", "a..b", "A", "", "a@v0", "a@1", "a\n", "x" * 65, ".a"]
)
def test_names_that_could_leave_the_folder_are_refused(text):
    with pytest.raises(BadInput):
        ArtifactRef.parse(text)


def test_an_unknown_environment_lists_the_known_ones():
    with pytest.raises(NotFound, match="crafter"):
        get_environment("pong")


def test_errors_say_what_was_kept_and_what_is_next_and_survive_another_process():
    import pickle  # errors cross process pools; nothing is stored this way

    error = NotFound("no version v9", kept="v1", hint="use v1")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "no version v9; kept: v1; next: use v1"
    assert type(again) is NotFound and isinstance(again, LoreError)


def test_foreign_text_is_shown_escaped_and_short():
    assert shown("\x1b[31mred\u202e") == "\\x1b[31mred\\u202e"
    assert len(shown("x" * 500)) == 80
