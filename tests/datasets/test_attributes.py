"""A version is read with xarray, with zarr and with h5py alone: names of axes, shapes, units, meanings, words."""

import json
import runpy
import zipfile
from pathlib import Path

import h5py
import icechunk
import numpy as np
import pytest
import xarray
import zarr

from lore_datasets.advice import load_advice
from lore_datasets.errors import NotFound
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.exchange.zarr_store import open_zarr_store
from lore_datasets.places import shipped_files
from lore_datasets.schema import KINDS
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice
from lore_datasets.types import SymbolicState

DATA = Path(__file__).parent / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"


def tree(store):
    return xarray.open_datatree(store, engine="zarr", consolidated=False)


@pytest.mark.parametrize("name", ["small", "states", "small-model"])
def test_xarray_opens_every_array_of_a_version_under_named_axes_with_shape_unit_and_meaning(store, root, name):
    found, artifact = tree(open_zarr_store(name, root)), store.open(name)
    for path, array in artifact.arrays.items():
        folder, _, last = path.rpartition("/")
        variable = found[folder].dataset[last] if folder else found.dataset[last]
        assert np.array_equal(variable.values.astype(array.dtype), array), path
        assert {"shape", "unit", "meaning"} <= variable.attrs.keys() and not any(
            d.startswith("dim_") for d in variable.dims
        )


def test_every_field_of_every_kind_has_a_meaning():
    assert all(field.meaning for groups in KINDS.values() for fields in groups.values() for field in fields.values())


def test_the_rows_of_a_round_open_alone_and_are_chosen_by_the_name_of_an_option(store, root):
    rows = xarray.open_zarr(open_zarr_store("small@v1", root), group="round-000", consolidated=False)
    data = load_advice("small@v1", root)
    rows = rows.assign_coords(option=rows.logits.attrs["options"], byte=rows.state.attrs["bytes"])
    assert (
        rows.sizes["row"] == len(data.rows) and rows.logits.attrs["shape"] == f"row 48, option {rows.sizes['option']}"
    )
    skill = data.skills[3].name
    assert skill in data.actions  # an action and a skill may have one name
    skill = f"{skill} (skill)"
    assert np.array_equal(rows.logits.sel(option=skill), data.rows.logits[:, len(data.actions) + 3])
    states = SymbolicState.unpack(data.rows.state, data.environment.layout)
    wood = data.environment.vocab.items.index("wood")
    assert np.array_equal(rows.state.sel(byte="inventory.wood"), states.inventory[:, wood])


def test_what_older_releases_wrote_opens_in_xarray_too(tmp_path):
    with zipfile.ZipFile(DATA / "schema1.store.zip") as archive:
        archive.extractall(tmp_path)
    found = tree(open_zarr_store("small@v2", tmp_path))
    assert found["round-001"].dataset.logits.dims == ("row", "option")
    assert len(found["round-000"].dataset.state.attrs["bytes"]) == 104


def test_a_round_that_stores_a_skill_twice_and_names_rows_of_answers_is_one_tree(tmp_path, env, rng):
    writer = Store(tmp_path).writer("talk", "advice", environment=env, skills=env.skills)
    writer.append("rows", **random_advice(env, 2, rng))
    skill = env.skills[0]
    writer.append("skills", name=[skill.name] * 2, json=[skill.to_json()] * 2, origin=["asked"] * 2)
    texts = {name: ["x"] for name in ("kind", "prompt_hash", "prompt", "response", "model")}
    zero = dict.fromkeys(("tokens_in", "tokens_out", "latency_s", "price_usd"), np.zeros(1, np.uint8))
    writer.append("answers", **texts, **zero, row=[1])
    found = tree(open_zarr_store(writer.commit("one answer"), tmp_path))["round-000"]
    assert found["skills"].sizes["stored_skill"] == len(env.skills) + 1 and found["answers"].dataset.row.values == [1]


def test_names_that_come_with_lore_open_and_unknown_ones_are_named(tmp_path):
    rows = xarray.open_zarr(open_zarr_store("crafter-claude@v1", tmp_path), group="round-000", consolidated=False)
    assert rows.sizes["row"] == 1260
    with pytest.raises(NotFound):
        open_zarr_store("nobody", tmp_path)


def test_zarr_and_h5py_alone_say_what_a_byte_of_a_state_means(store, root, tmp_path, env):
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(root / "small.icechunk")))
    plain = zarr.open_group(repository.readonly_session(tag="v2").store, mode="r")["round-001/state"]
    export_hdf5(store, "small@v2", tmp_path / "x.h5")
    states = SymbolicState.unpack(plain[:], env.layout)
    with h5py.File(tmp_path / "x.h5") as file:
        state = file["round-001/state"]
        for attributes in (plain.attrs, state.attrs):
            names = list(attributes["bytes"])
            assert len(names) == 104 and names[0] == "view[0,0]" and attributes["meaning"].startswith("what the player")
            row = dict(zip(names, state[5].tolist(), strict=True))
            assert row["daylight"] == states[5].daylight and row[f"vitals.{env.vocab.vitals[0]}"] == states[5].vitals[0]
            assert row[f"unlocked.{env.vocab.achievements[-1]}"] == states[5].unlocked[-1]
            assert attributes["view_values"][row["view[3,4]"]] == "player"
            assert attributes["facing_values"][row["facing"]] == env.vocab.directions[states[5].facing][0]
        assert list(file["round-000/applicable"].attrs["skills"]) == [skill.name for skill in env.skills]
        assert file.attrs["dataset"] == "small@v2" and "offsets" in file["round-000/reason"].attrs["stored"]


@pytest.mark.parametrize("script", ["04_decode_state_h5.py", "05_decode_state_xarray.py"])
def test_the_examples_decode_a_state(script, store, root, tmp_path, monkeypatch, capsys, env):
    export_hdf5(store, "small@v1", tmp_path / "x.h5")
    monkeypatch.setenv("LORE_DATASETS", str(root))
    monkeypatch.setattr("sys.argv", [script, str(tmp_path / "x.h5") if "h5" in script else "small@v1", "5"])
    runpy.run_path(str(EXAMPLES / script))
    *view, told = capsys.readouterr().out.splitlines()
    state = SymbolicState.unpack(load_advice("small@v1", root).rows.state[5], env.layout)
    assert [line.split() for line in view] == [[env.vocab.targets[cell][:8] for cell in line] for line in state.view]
    counts = [f"inventory.{name} {n}" for name, n in zip(env.vocab.items, state.inventory, strict=True) if n]
    assert told.startswith(f"looks {env.vocab.directions[int(state.facing)][0]} | ") and set(counts) <= set(
        told.partition(" | ")[2].split(", ")
    )


@pytest.mark.parametrize("file", [file for files in shipped_files().values() for file in files], ids=lambda f: f.name)
def test_the_files_that_come_with_lore_say_what_a_state_means(file):
    with h5py.File(file) as opened:
        assert len(opened["round-000/state"].attrs["bytes"]) == opened["round-000/state"].shape[1]
        manifest = json.loads(bytes(opened["manifest"][:]))["manifest"]
        assert list(opened.attrs["actions"]) == manifest["actions"]
