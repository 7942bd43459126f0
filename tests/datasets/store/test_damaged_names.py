"""A damaged tag, label or branch hides nothing else; a folder that never became a repository is in nobody's way."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from flows.cli.main import main
from lore_datasets.advice import load_advice
from lore_datasets.errors import CorruptArtifact, NotFound
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_model


def ref(root, name):
    return root / "small.icechunk" / "refs" / name / "ref.json"


def flip(path):
    """Another letter inside the snapshot's name."""
    text = path.read_text()
    path.write_text(text.replace(text[15], "A" if text[15] != "A" else "B", 1))


def remove(path):
    shutil.rmtree(path.parent)


def retract(path):
    """As Icechunk deletes a tag: a mark beside it."""
    path.with_name("ref.json.deleted").write_bytes(b"")


def empty(path):
    path.write_bytes(b"")


DAMAGE = {flip: "points at nothing", remove: "is missing", retract: "cannot be read", empty: "cannot be read"}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_newest_tag_is_named_and_a_rollback_goes_on_from_another_version(root, env, damage, capsys):
    store = Store(root)
    damage(ref(root, "tag.v2"))
    assert store.versions("small") == [1] and store.verify("small@v1").version == 1
    for where in ("small", "small@v2"):
        with pytest.raises(CorruptArtifact, match=rf"small@v2 is damaged: its tag {DAMAGE[damage]}.*kept: small@v1"):
            store.open(where)
    with pytest.raises(CorruptArtifact, match="small@v2 is damaged"):
        small_advice(root, env, 4)
    assert main(["datasets", "list", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "damaged: small@v2 is damaged: its tag" in out and "small@v1#" in out and "states@v1#" in out
    with pytest.raises(CorruptArtifact, match="small@v2"):
        store.gc()
    assert store.rollback("small@v1") == store.resolve("small")
    made = small_advice(root, env, 4, seed=5)
    assert made.version == 3 and store.manifest("small").parents == (str(store.resolve("small@v1")),)


def test_a_damaged_advice_model_is_not_replaced_by_an_older_one_until_somebody_says_so(root, env):
    store = Store(root)
    before = load_advice("small", root)
    small_model(root, env, before.ref, seed=3)
    empty(root / "small-model.icechunk" / "refs" / "tag.v2" / "ref.json")
    with pytest.raises(CorruptArtifact, match="small-model@v2 is damaged"):
        load_advice("small", root)
    store.rollback("small-model@v1")
    assert before.model is not None and load_advice("small", root).model.keys() == before.model.keys()


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_older_tag_is_named_and_the_newest_goes_on(root, env, damage):
    store = Store(root)
    damage(ref(root, "tag.v1"))
    assert store.verify("small").version == 2 and store.survey("small").current == 2
    assert DAMAGE[damage] in store.survey("small").damage[0]
    with pytest.raises(CorruptArtifact, match="small@v1 is damaged"):
        store.open("small@v1")
    assert small_advice(root, env, 4, seed=5).version == 3


@pytest.mark.parametrize("damage", [flip, empty], ids=lambda d: d.__name__)
def test_a_flipped_label_is_noticed_and_can_be_set_again(root, damage, capsys):
    store = Store(root)
    store.tag("small@v1", "good")
    store.tag("small@v2", "newer")
    damage(ref(root, "branch.label.good"))
    assert store.labels("small") == {"newer": 2} and store.resolve("small@newer").version == 2
    with pytest.raises(CorruptArtifact, match=r"label good of small cannot be read.*lore datasets tag small@vN good"):
        store.resolve("small@good")
    with pytest.raises(NotFound, match="no label 'best'"):
        store.resolve("small@best")
    assert main(["datasets", "list", "--root", str(root)]) == 0
    assert "label good of small" in capsys.readouterr().out
    store.tag("small@v1", "good")
    assert store.labels("small") == {"good": 1, "newer": 2} and store.survey("small").damage == []


@pytest.mark.parametrize("damage", [flip, empty, remove], ids=lambda d: d.__name__)
def test_a_damaged_main_is_mended_from_the_newest_tag(root, env, damage):
    damage(ref(root, "branch.main"))
    store = Store(root)
    assert [store.verify(f"small@v{n}").version for n in store.versions("small")] == [1, 2]
    assert small_advice(root, env, 4, seed=5).version == 3 and store.survey("small").damage == []


def test_a_damaged_rollback_is_not_taken_for_the_newest_version(root):
    store = Store(root)
    store.rollback("small@v1")
    flip(ref(root, "branch.back.2"))
    with pytest.raises(CorruptArtifact, match="rolled back to a version that cannot be found"):
        store.resolve("small")
    assert store.rollback("small@v1") == store.resolve("small")


def test_folders_of_writers_that_died_at_the_start_count_as_absent_and_are_cleared(tmp_path, env, capsys):
    (tmp_path / "bare.icechunk").mkdir()
    torn = tmp_path / "torn.icechunk"
    for folder in ("snapshots", "refs/branch.main"):
        (torn / folder).mkdir(parents=True)
    (torn / "refs" / "branch.main" / "ref.json").write_bytes(b"")
    store = Store(tmp_path)
    assert store.names() == [] and store.gc() == {}
    for name in ("bare", "torn"):
        with pytest.raises(NotFound, match=f"no dataset '{name}'"):
            store.versions(name)
    assert main(["datasets", "list", "--root", str(tmp_path)]) == 0 and "damaged" not in capsys.readouterr().out
    for name in ("bare", "torn"):
        assert store.verify(small_advice(tmp_path, env, 4, name=name)).version == 1


def test_half_a_copy_of_a_dataset_is_named_and_not_cleared(tmp_path, env):
    whole = small_advice(tmp_path / "there", env, 4, name="half")
    there, here = tmp_path / "there" / "half.icechunk", tmp_path / "half.icechunk"
    shutil.copytree(there, here, ignore=shutil.ignore_patterns("refs"))
    with pytest.raises(CorruptArtifact, match=r"holds data and no version of it.*copy it again"):
        small_advice(tmp_path, env, 4, name="half")
    with pytest.raises(CorruptArtifact, match="half a copy"):
        Store(tmp_path).resolve("half")
    shutil.copytree(there / "refs", here / "refs")
    assert Store(tmp_path).resolve("half").digest == whole.digest


def test_a_folder_with_somebody_s_files_is_not_cleared(tmp_path, env):
    mine = tmp_path / "mine.icechunk" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years")
    with pytest.raises(CorruptArtifact, match=r"holds thesis\.txt.*move it elsewhere"):
        small_advice(tmp_path, env, 4, name="mine")
    assert mine.read_text() == "years"


def test_a_repository_whose_tags_are_all_damaged_is_never_cleared(root, env):
    for name in ("branch.main", "tag.v1", "tag.v2"):
        empty(ref(root, name))
    chunks = sorted((root / "small.icechunk" / "chunks").iterdir())
    with pytest.raises(CorruptArtifact):
        small_advice(root, env, 4)
    assert sorted((root / "small.icechunk" / "chunks").iterdir()) == chunks


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_writer_killed_while_it_creates_a_dataset_blocks_nobody(tmp_path, env, kills):
    """Killed at each of the first renames and syncs: the next writer makes the dataset."""
    code = """
import os, sys
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice, small_model
left, fsync = int(sys.argv[2]), os.fsync
def dying(handle):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    fsync(handle)
os.fsync = dying
small_advice(sys.argv[1], get_environment("crafter"), 4, name="new")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for i in range(kills):
        root = tmp_path / str(i)
        done = subprocess.run([sys.executable, "-c", code, str(root), str(20 * i)], env=environment, timeout=60)
        assert done.returncode in (-signal.SIGKILL, 0)
        store = Store(root, wait=5)
        held = store.versions("new") if "new" in store.names() else []
        assert [store.verify(f"new@v{n}").version for n in held] in ([], [1])
        assert small_advice(root, env, 4, seed=1, name="new").version == len(held) + 1
