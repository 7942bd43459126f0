"""Where compiled code is kept when the clone, or the home too, cannot be written."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from flows.cli import doctor
from lore.compiled import cache_folder, is_temporary


@pytest.fixture
def blocked(tmp_path) -> Path:
    """A place in which no folder can be made, for the owner of everything either."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def test_code_is_kept_beside_the_sources_else_in_the_user_s_cache(tmp_path, blocked):
    assert cache_folder(tmp_path, blocked, blocked) is None
    assert cache_folder(blocked, tmp_path / "cache", blocked) == tmp_path / "cache" / "lore" / "compiled"


def test_without_a_home_a_temporary_folder_of_one_s_own_is_taken_and_never_a_prepared_one(tmp_path, blocked):
    own = cache_folder(blocked, blocked, tmp_path)
    assert own is not None and own.stat().st_mode & 0o777 == 0o700 and cache_folder(blocked, blocked, tmp_path) == own
    own.chmod(0o777)  # as somebody else would have made it, to have code of theirs run
    assert cache_folder(blocked, blocked, tmp_path) not in (own, None)
    own.rmdir()
    own.symlink_to(tmp_path)
    assert cache_folder(blocked, blocked, tmp_path) not in (own, None)


def test_the_doctor_says_that_compiled_code_is_lost_with_the_machine_s_next_start(monkeypatch):
    kept = Path(tempfile.gettempdir()) / f"lore-compiled-{os.getuid()}"
    assert is_temporary(kept) and not is_temporary(None)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(kept))
    ((state, _, found),) = doctor._compiled()
    assert state == "note" and "set NUMBA_CACHE_DIR" in found
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert next(doctor._compiled())[0] == "ok"


def test_a_loop_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "outer.py").write_text(
        "from inner import one\nfrom lore.compiled import njit\n"
        "@njit(cache=True)\ndef twice():\n    return 2 * one()\nprint(twice(), sum(twice.stats.cache_hits.values()))\n"
    )

    def run(value: int) -> str:
        body = f"from lore.compiled import njit\n@njit(cache=True)\ndef one():\n    return {value}\n"
        (tmp_path / "inner.py").write_text(body)
        return subprocess.run([sys.executable, "outer.py"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    assert [run(1), run(1), run(3)] == ["2 0", "2 1", "6 0"]
