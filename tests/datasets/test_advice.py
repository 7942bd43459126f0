import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lore_datasets.advice import load_advice, shared_advice
from lore_datasets.environments import ENVIRONMENTS, get_environment
from lore_datasets.errors import BadInput, NotFound, SchemeMismatch
from lore_datasets.exchange.hdf5 import export_hdf5, read_hdf5
from lore_datasets.keys import fine_keys
from lore_datasets.language.skills import parse_skill
from lore_datasets.store.lineage import newest_model
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice, small_model
from lore_datasets.types import SymbolicState

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = Path(__file__).parent / "data"


def test_rounds_lie_side_by_side_with_keys_that_fit_their_states(store, root):
    data = load_advice("small", root)
    assert len(data.rows) == 80 and data.ref == store.resolve("small@v2")
    states = SymbolicState.unpack(data.rows.state, data.environment.layout)
    assert np.array_equal(fine_keys(states, data.environment), data.rows.key_fine)
    first = load_advice("small@v1", root)
    assert np.array_equal(data.rows.logits[:48], first.rows.logits)
    assert [s.name for s in data.skills] == list(
        data.manifest.skills
    ) and data.actions == data.environment.vocab.actions


def test_older_rounds_are_padded_with_unknown_columns_when_skills_were_added(root, env, rng):
    body = {"version": 1, "name": "wait_a_bit", "start": {"op": "true"}, "steps": [{"do": "act", "action": "noop"}]}
    new = parse_skill({**body, "done": {"op": "false"}, "max_steps": 5}, env.vocab)
    writer = Store(root).writer("small", "advice", environment=env, skills=(*env.skills, new))
    writer.append("rows", **random_advice(env, 6, rng, len(env.skills) + 1, plans=3, steps=7))
    writer.commit("wider")
    rows, before = load_advice("small", root).rows, load_advice("small@v2", root).rows
    assert rows.logits.shape == rows.mask.shape == (86, len(env.vocab.actions) + len(env.skills) + 1)
    assert np.array_equal(rows.logits[:80, :-1], before.logits) and not rows.mask[:80, -1].any()
    assert rows.plans.shape == (86, 3, 7) and (rows.plans[:80, 2] == -1).all() and not rows.applicable[:80, -1].any()
    assert not rows.plan_lengths[:80, 2].any() and rows.mask[80:, -1].any()


def test_the_newest_model_of_exactly_this_version_is_attached(store, root, env):
    assert load_advice("small@v1", root).model is None
    assert sorted(load_advice("small", root).model) == [
        "calibration/temperature",
        "model/dense.0.weight",
        "model/steps",
    ]
    ref = store.resolve("small@v2")
    newer = small_model(root, env, ref, seed=5)
    small_model(root, env, store.resolve("small@v1"), seed=6)
    assert newest_model(store, ref).ref == newer


def test_a_file_and_the_store_give_the_same_advice(store, root, tmp_path):
    export_hdf5(store, "small", tmp_path / "x.h5")
    a, b = load_advice("small", root), load_advice(str(tmp_path / "x.h5"))
    assert a.ref == b.ref and a.skills == b.skills
    for name in vars(a.rows):
        assert np.array_equal(getattr(a.rows, name), getattr(b.rows, name))


def test_other_kinds_are_refused(root):
    with pytest.raises(BadInput, match="kind states, not advice"):
        load_advice("states", root)


def test_advice_of_another_key_scheme_is_refused(root, monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "crafter", replace(get_environment("crafter"), key_scheme="crafter/2"))
    with pytest.raises(SchemeMismatch, match=r"crafter/1.*crafter/2"):
        load_advice("small", root)


@pytest.mark.parametrize("script", ["01_read_advice_zarr.py", "02_read_advice_h5.py"])
def test_the_examples_print_advice_in_under_ten_lines(store, root, tmp_path, script):
    export_hdf5(store, "small@v1", tmp_path / "x.h5")
    argument = tmp_path / "x.h5" if "h5" in script else root / "small.icechunk"
    done = subprocess.run([sys.executable, EXAMPLES / script, argument], capture_output=True, text=True)
    assert done.stdout.count("because") == 5, done.stderr
    lines = (EXAMPLES / script).read_text().splitlines()
    code = [line for line in lines if line and not line.startswith(('"""', "import "))]
    assert len(code) < 10


def test_a_file_written_with_schema_1_can_always_be_read():
    data = load_advice(str(DATA / "schema1.h5"))
    assert data.ref.digest == GOLDEN and len(data.rows) == 6 and data.manifest.schema == 2
    assert data.rows.reason[3] == "row 3 \u2192 because" and data.skills[0].name == "wander"
    assert read_hdf5(DATA / "schema1.h5").arrays["round-000/answers/prompt"][0] == "state 0: caf\u00e9"


GOLDEN = "9fe259c8348f4d48f8226711140239707d947328d4fee7c6bd2dbac2d6cb52ce"


def test_without_texts_everything_but_the_reasons_is_there(root, store, tmp_path):
    export_hdf5(store, "small@v2", tmp_path / "small.h5")
    whole = load_advice("small@v2", root)
    for bare in (load_advice("small@v2", root, texts=False), load_advice(str(tmp_path / "small.h5"), texts=False)):
        assert set(bare.rows.reason) == {""} and len(bare.rows.reason) == len(whole.rows) == len(bare.rows)
        for name in ("state", "logits", "plans", "key_goal"):
            np.testing.assert_array_equal(getattr(bare.rows, name), getattr(whole.rows, name))


def test_a_process_reads_a_version_once_and_a_changed_file_or_a_newer_model_anew(
    root, store, env, tmp_path, monkeypatch
):
    monkeypatch.setenv("LORE_DATASETS", str(root))
    first = shared_advice("small")
    assert shared_advice("small@v2") is first is shared_advice(str(first.ref))
    assert shared_advice("small@v1") is not first
    before = shared_advice("small")
    small_model(root, env, before.ref, seed=5)
    assert shared_advice("small") is not before
    path = tmp_path / "small.h5"
    export_hdf5(store, "small@v1", path)
    old = shared_advice(str(path))
    assert shared_advice(str(path)) is old
    export_hdf5(store, "small@v2", path)
    assert len(shared_advice(str(path)).rows) == 80
    path.unlink()
    with pytest.raises(NotFound, match="no file"):
        shared_advice(str(path))
