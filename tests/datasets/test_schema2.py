"""What schema 2 added: programs, links from answers to rows, names of axes, words and layout, room for more."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import icechunk
import numpy as np
import pytest
import zarr

from lore_datasets.advice import load_advice
from lore_datasets.environments import ENVIRONMENTS, Environment, get_environment
from lore_datasets.errors import BadInput, CorruptArtifact, ProgramError
from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5, read_hdf5
from lore_datasets.language.programs import parse_program
from lore_datasets.store.migrate import m001_words_and_layout
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice, random_states, small_advice
from lore_datasets.types import SymbolicState, layout_table, vocabulary_of

DATA = Path(__file__).parent / "data"
GOLDEN = {  # reference -> digest, written by the last release of schema 1
    "small@v1": "7da6fb8504223556e3caaf25e1aabc1fdf3ac6fc37e32a88f7020079253ac7f9",
    "small@v2": "ece491d67a044b3983c89494de9e79cb5219e257f20e9ccdca8d57a9540f7933",
    "small-model@v1": "d78af7a43562110103694e22c9508e9ec65da32bf3cf2371db37ea07b36768f8",
}
RULES = {"version": 1, "rules": [{"when": {"op": "true"}, "goal": "explore"}]}


def program(env, *goals):
    rules = [{"when": {"op": "true"}, "goal": goal, "why": "test"} for goal in goals]
    return parse_program({"version": 1, "rules": rules}, env.vocab, [s.name for s in env.skills]).text


@pytest.fixture
def old(tmp_path):
    """A store that the last release of schema 1 has written."""
    with zipfile.ZipFile(DATA / "schema1.store.zip") as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def test_a_store_of_schema_1_is_read_with_the_digests_it_had(old):
    store = Store(old)
    assert {ref: store.verify(ref).digest for ref in GOLDEN} == GOLDEN
    data = load_advice("small", old)
    assert data.programs == () and data.ref.digest == GOLDEN["small@v2"] and len(data.rows) == 10
    assert data.model is not None and store.labels("small") == {"good": 1}
    assert data.manifest.schema == 2 and data.manifest.layout == layout_table(data.environment.vocab)


def test_a_dataset_of_schema_1_goes_on_with_a_program_and_travels(old, env, tmp_path):
    store = Store(old)
    text = program(env, "explore")
    with store.writer("small", "advice", environment=env, skills=env.skills) as writer:
        writer.append("programs", json=[text], origin=["me"])
        ref = writer.commit("a program alone")
    data = load_advice(ref, old)
    assert data.programs == (text,) and len(data.rows) == 10 and ref.version == 3
    assert store.verify("small@v2").digest == GOLDEN["small@v2"]
    export_hdf5(store, ref, tmp_path / "x.h5")
    assert load_advice(str(tmp_path / "x.h5")).programs == (text,)
    assert import_hdf5(tmp_path / "x.h5", Store(tmp_path / "other")).digest == ref.digest
    assert load_advice("small", tmp_path / "other").programs == (text,)


def test_an_import_of_schema_1_keeps_its_digest(tmp_path):
    before = read_hdf5(DATA / "schema1.h5").ref
    assert import_hdf5(DATA / "schema1.h5", Store(tmp_path)).digest == before.digest
    assert Store(tmp_path).verify(before.name).digest == before.digest


def test_the_migration_states_words_and_layout_and_leaves_unknown_environments_without_them(env):
    lifted = m001_words_and_layout({"environment": "crafter", "key_scheme": env.key_scheme, "name": "x"})
    assert lifted["vocabulary"] == vocabulary_of(env.vocab) and lifted["name"] == "x"
    for environment, scheme in (("gone", "gone/1"), ("crafter", "crafter/0")):
        assert m001_words_and_layout({"environment": environment, "key_scheme": scheme})["layout"] == {}


def test_programs_of_all_rounds_stand_oldest_first(tmp_path, env):
    texts = [program(env, "explore"), program(env, "sleep"), program(env, "explore", "sleep")]
    store = Store(tmp_path)
    for part in (texts[:1], texts[1:]):
        writer = store.writer("talk", "advice", environment=env, skills=env.skills)
        writer.append("programs", json=part, origin=["me"] * len(part))
        ref = writer.commit("asked")
    assert load_advice("talk", tmp_path).programs == tuple(texts)
    assert store.manifest(ref).counts["programs"] == 3
    changed = store.diff("talk@v1", "talk@v2")["program"]
    assert len(changed) == 1 and changed[0].startswith("added   1: sleep")
    assert store.diff("talk@v1", "talk@v1")["program"] == []


def test_a_program_alone_is_a_version(tmp_path, env):
    text = program(env, "explore")
    writer = Store(tmp_path).writer("p", "advice", environment=env, skills=env.skills)
    writer.append("programs", json=[text], origin=["me"])
    data = load_advice(writer.commit("alone"), tmp_path)
    assert len(data.rows) == 0 and data.rows.logits.shape == (0, len(data.actions) + len(data.skills))


BAD_PROGRAMS = {
    "unknown goal": (
        json.dumps({"version": 1, "rules": [{"when": {"op": "true"}, "goal": "fly"}]}),
        ProgramError,
        "fly",
    ),
    "no JSON": ("rules", ProgramError, "JSON"),
    "not canonical": (json.dumps(RULES), BadInput, "canonical form"),
}


@pytest.mark.parametrize("case", BAD_PROGRAMS)
def test_a_bad_program_is_refused_before_anything_is_written(tmp_path, env, case):
    text, error, message = BAD_PROGRAMS[case]
    store = Store(tmp_path)
    writer = store.writer("p", "advice", environment=env, skills=env.skills)
    with pytest.raises(error, match=message):
        writer.append("programs", json=[text], origin=["answer"])
    assert store.names() == []


def test_an_imported_program_is_held_to_the_same_rules(tmp_path, env, monkeypatch):
    store = Store(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr("lore_datasets.store.writer.check_programs", lambda texts, manifest: None)
        writer = store.writer("p", "advice", environment=env, skills=env.skills)
        writer.append("programs", json=[json.dumps(RULES)], origin=["me"])
        ref = writer.commit("past the checks")
    export_hdf5(store, ref, tmp_path / "x.h5")
    with pytest.raises(BadInput, match="canonical form"):
        import_hdf5(tmp_path / "x.h5", Store(tmp_path / "b"))


def answers(n, row):
    texts = {name: ["x"] * n for name in ("kind", "prompt_hash", "prompt", "response", "model")}
    numbers = {name: np.zeros(n) for name in ("latency_s", "price_usd")}
    return {**texts, **numbers, "tokens_in": np.zeros(n, int), "tokens_out": np.zeros(n, int), "row": row}


def test_answers_name_their_rows_and_a_row_that_is_not_there_is_refused(tmp_path, env, rng):
    store = Store(tmp_path)
    writer = store.writer("talk", "advice", environment=env, skills=env.skills)
    writer.append("rows", **random_advice(env, 2, rng))
    writer.append("answers", **answers(4, [0, 1, 1, -1]))
    found = store.open(writer.commit("linked"))
    assert found.arrays["round-000/answers/row"].tolist() == [0, 1, 1, -1]
    for row in (2, -2):
        writer = store.writer("talk", "advice", environment=env, skills=env.skills)
        writer.append("rows", **random_advice(env, 2, rng))
        writer.append("answers", **answers(1, [row]))
        with pytest.raises(BadInput, match=r"answers/row holds .*allowed -1\.\.1"):
            writer.commit("linked to nothing")
    assert store.versions("talk") == [1]


def test_every_array_names_its_axes_in_the_store_and_in_the_file(store, root, tmp_path):
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(root / "small.icechunk")))
    version = zarr.open_group(repository.readonly_session(tag="v2").store, mode="r")
    export_hdf5(store, "small@v2", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        for path, spec in store.manifest("small@v2").arrays.items():
            names = version[path].metadata.dimension_names
            assert len(names) == len(spec.shape) and all(names)
            stored = file[path + ".offsets" if spec.dtype == "str" else path]
            assert tuple(axis.label for axis in stored.dims) == names
    assert version["round-001/logits"].metadata.dimension_names == ("row", "option")
    assert version["round-001/plans"].metadata.dimension_names == ("row", "plan", "step")
    assert version["round-001/answers/prompt"].metadata.dimension_names == ("answer",)


def decode(packed, manifest):
    """A packed state read with the manifest alone; no code of LoRe."""
    out = {}
    for field in manifest["layout"]["fields"]:
        size = int(np.prod(field["shape"]))
        out[field["name"]] = packed[field["offset"] : field["offset"] + size].reshape(field["shape"])
    return out


def test_a_packed_state_is_read_with_the_manifest_alone(tmp_path, env):
    ref = small_advice(tmp_path, env, 5)
    export_hdf5(Store(tmp_path), ref, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        manifest, packed = json.loads(bytes(file["manifest"][:]))["manifest"], file["round-000/state"][:]
    assert manifest["layout"]["size"] == packed.shape[1] == 104
    words, states = manifest["vocabulary"], SymbolicState.unpack(packed, env.layout)
    for i in range(5):
        found = decode(packed[i], manifest)
        assert np.array_equal(found["view"], states[i].view) and found["view"].shape == (7, 9)
        assert words["targets"][found["view"][3, 4]] == "player"
        assert found["inventory"][words["items"].index("wood")] == states[i].inventory[env.vocab.items.index("wood")]
        assert found["daylight"][0] == states[i].daylight and np.array_equal(found["unlocked"], states[i].unlocked)
        assert words["directions"][found["facing"][0]][0] == env.vocab.directions[int(states[i].facing)][0]


@pytest.fixture
def wide(env, monkeypatch):
    """An environment whose states have two numbers and a mission beside their packed bytes."""
    vocab = replace(env.vocab, environment="wide", scalars=("speed", "height"), has_mission=True)
    monkeypatch.setitem(ENVIRONMENTS, "wide", Environment("wide", vocab, "wide/1"))
    return get_environment("wide")


def test_a_registered_maker_is_called_once(env, monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "made", lambda name: replace(env, name=name))
    assert get_environment("made") is get_environment("made") is not get_environment("made:other")


def rows(env, n, rng):
    state = random_states(env, n, rng).pack()
    return {"state": state, "episode": np.zeros(n, int), "step": np.arange(n), "source": np.zeros(n, int)}


def test_scalars_and_missions_are_stored_where_the_environment_has_them(tmp_path, wide, rng):
    store = Store(tmp_path)
    more = {"scalars": rng.normal(size=(3, 2)).astype(np.float32), "mission": ["go", "stop", "caf\u00e9"]}
    writer = store.writer("w", "states", environment=wide)
    writer.append("rows", **rows(wide, 3, rng), **more)
    ref = writer.commit("three")
    export_hdf5(store, ref, tmp_path / "w.h5")
    for found in (store.open(ref), read_hdf5(tmp_path / "w.h5")):
        assert np.array_equal(found.arrays["round-000/scalars"], more["scalars"])
        assert found.arrays["round-000/mission"].tolist() == more["mission"]
        assert found.manifest.vocabulary["scalars"] == ["speed", "height"]


def test_rows_without_the_scalars_of_their_environment_and_with_those_of_another_are_refused(tmp_path, env, wide, rng):
    store = Store(tmp_path)
    for where, more, message in (
        (wide, {}, "wide and scalars do not go together"),
        (env, {"mission": ["go"] * 3}, "crafter and mission do not go together"),
        (wide, {"scalars": np.zeros((3, 5), np.float32), "mission": ["go"] * 3}, "axis F is 2 elsewhere"),
    ):
        writer = store.writer("w", "states", environment=where)
        writer.append("rows", **rows(where, 3, rng), **more)
        with pytest.raises(CorruptArtifact, match=message):
            writer.commit("wrong")
    assert "w" not in store.names() or store.versions("w") == []
