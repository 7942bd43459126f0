"""A version as a Parquet table: every row in words, refused where it is no table of ours, and loaded by Croissant."""

import json
import sys

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest

from flows.cli import main as cli
from lore_datasets.attributes import options
from lore_datasets.errors import BadInput, NotFound, UsageError
from lore_datasets.exchange.table import export_parquet, read_schema
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice
from lore_datasets.types import SymbolicState


@pytest.fixture(scope="module")
def table(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "small.parquet"
    assert export_parquet(Store(made), "small", path) == 80
    return path


def test_each_row_says_in_words_what_the_arrays_say_in_numbers(made, table, env):
    artifact, rows = Store(made).open("small"), pq.read_table(table).to_pylist()
    vocab, named = env.vocab, options(artifact.manifest, len(env.skills))
    assert [(row["round"], row["row"]) for row in rows] == [(0, i) for i in range(48)] + [(1, i) for i in range(32)]
    for row in rows:
        arrays = {p.split("/")[-1]: a[row["row"]] for p, a in artifact.arrays.items()
                  if p.startswith(f"round-00{row['round']}/") and p.count("/") == 1}  # fmt: skip
        state = SymbolicState.unpack(arrays["state"], env.layout)
        assert row["view"] == [[vocab.targets[cell] for cell in line] for line in state.view]
        assert row["achievements"] == [n for n, on in zip(vocab.achievements, state.unlocked, strict=True) if on]
        assert [row[f"inventory_{item}"] for item in vocab.items] == state.inventory.tolist()
        assert [row[f"vitals_{name}"] for name in vocab.vitals] == state.vitals.tolist()
        assert (row["facing"], row["sleeping"]) == (vocab.directions[state.facing][0], bool(state.sleeping))
        known = {named[i]: arrays["logits"][i] for i in np.flatnonzero(arrays["mask"])}
        chances = np.exp(list(known.values())) / np.exp(list(known.values())).sum()
        assert dict(zip(row["advice"], row["probabilities"], strict=True)) == pytest.approx(
            dict(zip(known, chances, strict=True)), abs=1e-5
        )
        assert row["probabilities"] == sorted(row["probabilities"], reverse=True)
        plans = [[named[i] for i in plan if i >= 0] for plan in arrays["plans"]]
        assert row["plans"] == [plan for plan in plans if plan] and len(row["plan_scores"]) == len(row["plans"])
        skills = named[len(vocab.actions) :]
        assert row["can_start"] == [n for n, on in zip(skills, arrays["applicable"], strict=True) if on]
        assert (row["reason"], row["adviser"], row["cost_usd"]) == (arrays["reason"], row["adviser"], None)
        assert (row["key_fine"], row["confidence"]) == (arrays["key_fine"], arrays["confidence"])


def test_answers_that_name_their_rows_say_what_a_state_cost(tmp_path, env, rng):
    store = Store(tmp_path)
    writer = store.writer("paid", "advice", environment=env, skills=env.skills, provenance={"adviser": "gemini"})
    nothing = random_advice(env, 3, rng)
    nothing |= {"mask": nothing["mask"] * 0, "logits": nothing["logits"] * 0}
    writer.append("rows", **nothing)
    texts = {name: ["x"] * 4 for name in ("kind", "prompt_hash", "prompt", "response", "model")}
    zero = dict.fromkeys(("tokens_in", "tokens_out", "latency_s"), np.zeros(4, np.uint8))
    writer.append("answers", **texts, **zero, price_usd=[0.5, 0.25, 1.0, 9.0], row=[0, 0, 2, -1])
    assert export_parquet(store, writer.commit("three"), tmp_path / "x.parquet") == 3
    found = pq.read_table(tmp_path / "x.parquet").to_pydict()
    assert found["cost_usd"] == [0.75, 0.0, 1.0] and found["adviser"] == ["gemini"] * 3
    assert found["advice"] == [[]] * 3 and found["probabilities"] == [[]] * 3
    writer = store.writer("paid", "advice", environment=env, skills=env.skills)
    writer.append("rows", **random_advice(env, 0, rng))
    one = {name: value[:1] for name, value in (texts | zero).items()}
    writer.append("answers", **one, price_usd=[9.0], row=[-1])
    assert export_parquet(store, writer.commit("a round without rows"), tmp_path / "x.parquet") == 3


def test_states_say_who_played_them_and_other_kinds_are_refused(made, tmp_path, env):
    assert export_parquet(Store(made), "states", tmp_path / "s.parquet") == 48
    found = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert found["source"][:3] == ["random", "rules", "half"] and found["episode"][16] == 1 and "advice" not in found
    with pytest.raises(BadInput, match="of kind advice_model"):
        export_parquet(Store(made), "small-model", tmp_path / "m.parquet")
    with pytest.raises(NotFound, match="no folder"):
        export_parquet(Store(made), "small", tmp_path / "none" / "x.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_a_file_of_an_unknown_schema_is_named_and_stays(made, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LORE_DATASETS", str(made))
    foreign, broken = tmp_path / "foreign.parquet", tmp_path / "broken.parquet"
    pq.write_table(pyarrow.table({"price": [1], "name": ["x"]}), foreign)
    broken.write_bytes(table.read_bytes()[:-20])
    for path, message in ((foreign, "unknown schema.*price, name"), (broken, "not a Parquet file")):
        before = path.read_bytes()
        with pytest.raises(BadInput, match=message):
            read_schema(path)
        assert cli.main(["datasets", "import", str(path)]) == BadInput.exit_code
        assert cli.main(["datasets", "show", "small", "--card", "croissant", "--file", str(path)]) == BadInput.exit_code
        assert path.read_bytes() == before
    assert cli.main(["datasets", "import", str(table)]) == BadInput.exit_code
    assert "is a table of small@v2#" in capsys.readouterr().err
    with pytest.raises(NotFound):
        read_schema(tmp_path / "none.parquet")
    assert cli.main(["datasets", "show", "small@v1", "--card", "croissant", "--file", str(table)]) == BadInput.exit_code
    assert "is a table of small@v2" in capsys.readouterr().err


def test_without_pyarrow_the_extra_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"-e '.\[data\]"):
        export_parquet(Store(made), "small", tmp_path / "x.parquet")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib and pandas inside mlcroissant
def test_mlcroissant_loads_the_records_that_a_card_describes(made, table, monkeypatch, capsys):
    import mlcroissant

    monkeypatch.setenv("LORE_DATASETS", str(made))
    assert cli.main(["datasets", "show", "small", "--card", "croissant", "--file", str(table)]) == 0
    card = table.with_suffix(".json")
    card.write_text(capsys.readouterr().out)
    dataset = mlcroissant.Dataset(card)
    assert not dataset.metadata.ctx.issues.errors and not dataset.metadata.ctx.issues.warnings
    records = list(dataset.records("states"))
    want = pq.read_table(table).to_pylist()
    assert len(records) == len(want) == 80
    for got, row in zip(records, want, strict=True):
        told = {name.removeprefix("states/"): _text(value) for name, value in got.items()}
        assert {n: told[n] for n in row} == {n: pytest.approx(v) if n == "probabilities" else v for n, v in row.items()}
    fields = {field["name"]: field for field in json.loads(card.read_text())["recordSet"][0]["field"]}
    assert all(field["description"] for field in fields.values()) and len(fields) == len(want[0])


def _text(value):
    if isinstance(value, (list, np.ndarray)):
        return [_text(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value
