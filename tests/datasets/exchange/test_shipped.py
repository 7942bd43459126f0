"""Datasets that come with LoRe load by name from an empty folder; a damaged or foreign one is refused."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lore_datasets import places
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import CorruptArtifact, NotFound
from lore_datasets.exchange.hdf5 import read_hdf5
from lore_datasets.exchange.shipped import ShippedStore, shipped_file
from lore_datasets.testing import small_advice

NAMES = ("crafter-claude", "crafter-claude@v1", "crafter-qwen1.5b", "crafter-rules", "crafter-rules@v1")
ROOT = Path(__file__).parents[3]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_each_shipped_dataset_loads_by_name_from_an_empty_folder_and_writes_nothing(name, tmp_path):
    data = load_advice(name, tmp_path / "none")
    assert data.ref.name == name.partition("@")[0] and len(data.rows) >= 500
    assert bool(data.programs) == (name not in ("crafter-qwen1.5b", "crafter-rules@v1"))
    assert bool(data.model or data.programs)
    assert data.rows.mask.any(1).all()
    assert not (tmp_path / "none").exists()


def test_the_second_version_of_crafter_claude_is_the_first_with_the_skills_of_the_library(tmp_path):
    first, second = (load_advice(f"crafter-claude@v{number}", tmp_path) for number in (1, 2))
    assert second.programs == first.programs and str(first.ref) in second.manifest.parents
    assert [skill.name for skill in second.skills[: len(first.skills)]] == [skill.name for skill in first.skills]
    assert set(second.skills) == set(second.environment.skills) and len(first.skills) == 26


def test_a_store_takes_a_shipped_dataset_in_at_first_use_with_its_model_and_the_same_digest(name, tmp_path):
    store = ShippedStore(tmp_path)
    ref = store.verify(name)
    assert ref == load_advice(name, tmp_path / "none").ref
    again, shipped_one = load_advice(str(ref), tmp_path), load_advice(name, tmp_path / "x")
    assert again.programs == shipped_one.programs
    assert (again.model or {}).keys() == (shipped_one.model or {}).keys()
    assert len(store.versions(ref.name)) == len(places.shipped_files()[ref.name])


def test_a_file_is_small_its_cards_name_its_digest_and_git_takes_it_as_binary(name):
    file = shipped_file(name, ShippedStore("none"))
    ref = load_advice(name, "none").ref
    assert file.stat().st_size < 10_000_000
    for card in (file.with_suffix(".md"), file.with_suffix(".croissant.json")):
        assert ref.digest in card.read_text()
    told = {each["name"]: each for each in json.loads(file.with_suffix(".croissant.json").read_text())["distribution"]}
    for each in (file, file.with_suffix(".parquet")):
        assert told[each.name]["sha256"] == hashlib.sha256(each.read_bytes()).hexdigest()
    assert f"*{file.suffix} binary" in (ROOT / ".gitattributes").read_text()


def test_the_list_of_datasets_names_what_can_be_had(tmp_path, capsys):
    from flows.cli.main import main

    assert main(["datasets", "list", "--root", str(tmp_path)]) == 0
    assert {name for name in NAMES if "@" not in name} <= set(
        capsys.readouterr().out.splitlines()[0].replace(",", "").split()
    )


def test_another_version_or_digest_than_the_shipped_one_is_not_found(tmp_path):
    for where in ("crafter-rules@v7", "crafter-rules#00000000"):
        with pytest.raises(NotFound):
            load_advice(where, tmp_path)
    for use in (load_advice, lambda name, root: ShippedStore(root).open(name)):
        with pytest.raises(NotFound, match="did you mean crafter-claude"):
            use("crafter-cloude", tmp_path)
    small_advice(tmp_path, get_environment("crafter"), 4, name="mine")
    with pytest.raises(NotFound, match=r"did you mean mine\?"):
        load_advice("mime", tmp_path)
    with pytest.raises(NotFound, match=r"there is: mine; with LoRe come crafter-claude, crafter-"):
        load_advice("zzz", tmp_path)


def test_a_dataset_of_the_same_name_in_the_store_comes_first(tmp_path, env):
    mine = small_advice(tmp_path, env, 8, name="crafter-rules")
    assert load_advice("crafter-rules", tmp_path).ref == mine


def test_a_damaged_shipped_file_is_refused_by_name_and_nothing_enters_the_store(tmp_path, monkeypatch):
    file = places.shipped_files()["crafter-rules"][0]
    at = _offset(file, "round-000/logits")
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 0xFF
    folder = tmp_path / "share" / "lore" / "datasets"
    folder.mkdir(parents=True)
    (folder / "crafter-broken.h5").write_bytes(damaged)
    monkeypatch.setattr(places.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "crafter-broken" in places.shipped_files()
    for use in (
        lambda: load_advice("crafter-broken", tmp_path / "s"),
        lambda: ShippedStore(tmp_path / "s").show("crafter-broken"),
    ):
        with pytest.raises(CorruptArtifact, match="logits"):
            use()
    assert ShippedStore(tmp_path / "s").names() == []


def _offset(file, path):
    """Where in the file the first chunk of an array lies."""
    import h5py

    with h5py.File(file) as opened:
        return opened[path].id.get_chunk_info(0).byte_offset + 16


def test_a_machine_without_the_store_libraries_reads_a_shipped_dataset_by_name(tmp_path):
    code = (
        "import sys; sys.modules['icechunk'] = sys.modules['zarr'] = None\n"
        "from lore_datasets.advice import load_advice, shared_advice\n"
        "print(load_advice('crafter-rules').ref, len(shared_advice('crafter-rules').rows))"
    )
    paths = {"PYTHONPATH": f"{ROOT / 'datasets'}:{ROOT}", "LORE_DATASETS": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(read_hdf5(places.shipped_files()["crafter-rules"][-1]).ref)
