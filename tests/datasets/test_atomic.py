import errno
import json
import os
import subprocess
import sys

import pytest

from lore_datasets import atomic
from lore_datasets.errors import Busy, CorruptArtifact, NoSpace


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_json_is_written_whole_in_new_folders_and_leaves_no_draft(tmp_path):
    atomic.write_json(tmp_path / "a" / "x.json", {"b": 1})
    atomic.write_json(tmp_path / "a" / "x.json", {"b": 2})
    assert names(tmp_path / "a") == ["x.json"]
    assert (tmp_path / "a" / "x.json").read_text() == '{\n "b": 2\n}'


def test_an_error_while_writing_keeps_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "x"
    atomic.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["x"] and path.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_what_was_kept(tmp_path, monkeypatch, number):
    path = tmp_path / "x.json"
    atomic.write_json(path, 1)

    def full(handle):
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match=r"no space left for .*x\.json.*kept: .*x\.json as it was.*next: free"):
        atomic.write_json(path, 2)
    assert names(tmp_path) == ["x.json"] and json.loads(path.read_text()) == 1


def test_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def replaced(source, target):
        done.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    atomic.write_text(tmp_path / "x", "new")
    assert done[0].startswith(f".x.{os.getpid()}-") and done[1:] == ["renamed", tmp_path.name]


def test_clearing_removes_drafts_of_that_file_alone(tmp_path):
    for name in ("x", ".x.12-0.tmp", ".x.12.tmp", ".x.y.12-0.tmp", ".y.12-0.tmp", "x.12-0.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".x.13-0.tmp").mkdir()
    atomic.clear_drafts(tmp_path / "x")
    assert names(tmp_path) == [".x.12.tmp", ".x.13-0.tmp", ".x.y.12-0.tmp", ".y.12-0.tmp", "x", "x.12-0.tmp"]
    atomic.clear_drafts(tmp_path / "nowhere" / "x")


HOLD = """
import sys
from lore_datasets.atomic import held
with held(sys.argv[1], "{who}", hint="", who="the first"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder_who_is_named_and_frees_it_by_dying(tmp_path):
    lock = tmp_path / "folder" / "a.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "in"
    with pytest.raises(Busy, match=rf"taken by the first \(process {other.pid} since 2.*next: wait"):
        atomic.held(lock, "taken by {who}", hint="wait").__enter__()
    other.kill()
    other.communicate()
    with atomic.held(lock, "taken", hint="", wait=5), pytest.raises(Busy, match="taken again"):
        atomic.held(lock, "taken again", hint="").__enter__()
    assert lock.with_suffix(".holder").read_text().startswith("the first")


@pytest.mark.parametrize("suffix", [".lock", ".holder"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_keeps_its_bytes(tmp_path, suffix):
    (tmp_path / "mine").write_text("years of work")
    (tmp_path / "a").with_suffix(suffix).symlink_to(tmp_path / "mine")
    with pytest.raises(CorruptArtifact, match="is a symbolic link; kept: what it points at"):
        atomic.held(tmp_path / "a.lock", "{who}", hint="").__enter__()
    assert (tmp_path / "mine").read_text() == "years of work"
