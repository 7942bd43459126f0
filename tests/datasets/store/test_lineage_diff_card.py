import numpy as np
import pytest

from lore_datasets.errors import CorruptArtifact
from lore_datasets.exchange.card import markdown, summary
from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5
from lore_datasets.store.lineage import lineage, mermaid
from lore_datasets.store.manifest import from_dict, to_dict
from lore_datasets.store.migrate import MIGRATIONS, migrated
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states


def test_lineage_walks_from_the_model_to_the_first_version(store):
    lines = lineage(store, "small-model")
    expected = [str(store.resolve(r)) for r in ("small-model@v1", "small@v2", "small@v1")]
    assert [text for text, _, _ in lines] == expected and [depth for _, _, depth in lines] == [0, 1, 2]


def test_parents_that_the_store_lacks_are_named_without_a_manifest(store, tmp_path):
    export_hdf5(store, "small@v2", tmp_path / "x.h5")
    other = Store(tmp_path / "other")
    import_hdf5(tmp_path / "x.h5", other)
    (_, held, _), (text, missing, _) = lineage(other, "small")
    assert held is not None and missing is None and text == str(store.resolve("small@v1"))
    assert "not in this store" in mermaid(lineage(other, "small"))


def test_a_mermaid_chart_has_an_arrow_from_each_parent_to_its_child(store):
    chart = mermaid(lineage(store, "small-model")).splitlines()
    assert chart[0] == "flowchart TD" and [line.strip() for line in chart[4:]] == ["n1 --> n0", "n2 --> n1"]


def test_a_diff_counts_rows_by_state(store, env):
    change = store.diff("small@v1", "small@v2")
    assert change["rows"] == {"added": 32, "removed": 0, "changed": 0, "same": 48} and not change["equal"]
    assert change["counts"]["rows"] == [48, 80] and "round-001/logits" in change["arrays"]["added"]
    back = store.diff("small@v2", "small@v1")
    assert back["rows"]["removed"] == 32 and "round-001/logits" in back["arrays"]["removed"]
    assert store.diff("small@v1", "small@v1")["equal"]


def test_a_diff_sees_a_changed_answer_for_the_same_state(store, env):
    old = store.open("small@v1").arrays
    rows = {p.removeprefix("round-000/"): a for p, a in old.items() if p.count("/") == 1}
    rows["confidence"] = rows["confidence"].copy()
    rows["confidence"][:5] = np.float32(0.111)
    writer = store.writer("small", "advice", environment=env, skills=env.skills)
    writer.append("rows", **rows)
    writer.commit("asked again")
    assert store.diff("small@v1", "small@v3")["rows"] == {"added": 32, "removed": 0, "changed": 5, "same": 43}


def test_a_card_tells_identity_environment_counts_adviser_cost_and_parents(store):
    text = summary(store.manifest("small@v2"))
    for word in (
        str(store.resolve("small@v2")),
        "crafter/1",
        "rows 80",
        "adviser random",
        "tokens_in 320",
        "small@v1#",
    ):
        assert word in text
    assert text.isascii() and max(map(len, text.splitlines())) < 330


def test_a_card_shows_foreign_text_escaped(store, env):
    writer = store.writer("odd", "states", environment=env, provenance={"adviser": "\x1b[31mred"})
    state = random_states(env, 1, np.random.default_rng(0)).pack()
    writer.append("rows", state=state, episode=[0], step=[0], source=[0])
    text = summary(store.manifest(writer.commit("\u202ereversed")))
    assert text.isascii() and "\x1b" not in text and "\\x1b[31mred" in text


def test_an_older_manifest_is_lifted_step_by_step(store):
    body = {**to_dict(store.manifest("small")), "schema": -1}
    colour = body.pop("message")
    old = {**body, "note": colour}
    steps = {
        -1: lambda b: {**{k: v for k, v in b.items() if k != "note"}, "remark": b["note"]},
        0: lambda b: {**{k: v for k, v in b.items() if k != "remark"}, "message": b["remark"]},
        **MIGRATIONS,
    }
    assert from_dict(migrated(old, steps)) == store.manifest("small")
    with pytest.raises(CorruptArtifact, match="schema -1, which no release can read"):
        migrated(old, {})


def test_a_manifest_of_today_is_left_alone(store):
    body = to_dict(store.manifest("small"))
    assert migrated(body) is body


@pytest.mark.parametrize(
    "told", [{"model": "gpt-x"}, {"parameters": "t=0"}, {"models": "gpt"}, {"models": 3}, {"templates": ["a"]},
             {"skill_trials": "none"}],
)  # fmt: skip
def test_a_card_of_provenance_in_other_forms_tells_it_as_it_is(store, env, told):
    writer = store.writer("odd", "states", environment=env, provenance={"adviser": "me", **told})
    state = random_states(env, 1, np.random.default_rng(0)).pack()
    writer.append("rows", state=state, episode=[0], step=[0], source=[0])
    text = markdown(store.manifest(writer.commit("one")))
    assert all(str(value) in text for key, value in told.items() if key in ("model", "parameters", "models"))
