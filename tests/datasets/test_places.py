"""Places as people write them, and places that cannot be written."""

import errno
from pathlib import Path

import pytest

from lore_datasets.errors import BadInput, ConfigError, NoSpace, NotFound
from lore_datasets.places import check_writable, local_path, named
from lore_datasets.store.store import Store, default_root


def test_a_home_and_an_address_of_a_file_are_spelled_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    assert local_path("~") == "/home/her" and local_path("~/runs/a") == "/home/her/runs/a"
    assert local_path("file:///data/a%20b") == local_path("file://localhost/data/a%20b") == "/data/a b"
    assert [local_path(t) for t in ("runs/a", "a~b", "~other", "s3://a/b")] == ["runs/a", "a~b", "~other", "s3://a/b"]
    for foreign in ("file://server/share", "file:relative"):
        with pytest.raises(BadInput, match="no file of this machine"):
            local_path(foreign)


def test_datasets_lie_where_the_variable_says_or_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/data", f"file://{tmp_path}/data"):
        monkeypatch.setenv("LORE_DATASETS", given)
        assert default_root() == tmp_path / "data"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="is a file, not a folder of datasets"):
        Store(tmp_path / "file")
    with pytest.raises(ConfigError, match="LORE_DATASETS = gs://bucket/x is out of range"):
        Store("gs://bucket/x")


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    check_writable(tmp_path / "new")
    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x", "Not a directory"),
        (Path("/proc/x"), "/proc"),
    ):
        with pytest.raises(BadInput, match=said):
            check_writable(path)


def test_errors_of_the_system_about_a_path_are_named_and_others_are_not_hidden():
    assert isinstance(named(OSError(errno.ENOSPC, "full", "x")), NoSpace)
    assert isinstance(named(FileNotFoundError(errno.ENOENT, "No such file", "/proc/x")), NotFound)
    assert str(named(NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"))).startswith("a/b: Not a directory; ")
    with pytest.raises(ConnectionError):
        named(ConnectionResetError("reset"))
