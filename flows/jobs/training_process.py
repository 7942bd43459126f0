"""Training runs as processes of their own: started as children that end with their parent,
followed through the progress file they write."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.config import EvaluateJob, TrainJob
from flows.jobs.child_process import spawn, stop
from flows.terminal import current
from lore.config import Config
from lore.training.progress import waits
from lore_datasets.errors import Busy, LoreError, NoSpace, shown
from lore_datasets.json_text import parsed

__all__ = [
    "EVALUATION_PROGRESS", "arguments", "evaluate_in_process", "follow", "last_row", "run_child", "side_by_side",
    "stop_processes", "train_in_process",
]  # fmt: skip

EVALUATION_PROGRESS = "evaluation-progress.jsonl"
"""Progress of an evaluation, beside the run's own ``progress.jsonl``."""

_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_running: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}
_stopping = threading.Event()


def arguments(config: Config, default: Config | None = None) -> list[str]:
    """Command line for everything in ``config`` that is not as in ``default``."""
    default, words = default or Config(), []
    for section in dataclasses.fields(Config):
        mine, plain = getattr(config, section.name), getattr(default, section.name)
        for leaf in dataclasses.fields(mine):
            value = getattr(mine, leaf.name)
            if value == getattr(plain, leaf.name):
                continue
            values = [] if value is True else value if isinstance(value, (tuple, list)) else (value,)
            words += [f"--{section.name}.{leaf.name}".replace("_", "-"), *map(str, values)]
    return words


def last_row(path: Path) -> dict[str, Any] | None:
    """Last whole row of a JSON-lines file that somebody is writing, None when there is none."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 4096))
        for line in reversed(file.read().splitlines()):
            with suppress(ValueError):
                row = parsed(line)
                if isinstance(row, dict):
                    return row
    return None


def run_child(
    module: str, words: Sequence[str], folder: Path, log: str, env: dict[str, str], kept: str = "what was saved"
) -> None:
    """Run ``python -m module words`` with one thread to its end; its error becomes one here, with its last line.

    ``kept``: what an error or a stop leaves in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / log
    for attempt in range(20):  # a child of a killed parent may need a moment to let go of the folder
        began = path.stat().st_size if path.exists() else 0
        process = spawn(module, words, log=path, env={**_THREADS, **env})
        _running[process.pid] = (folder, process)
        try:
            code = process.wait()
        finally:
            _running.pop(process.pid, None)
            stop(process, 10.0)
        if code == 0:
            return
        if _stopping.is_set():
            raise LoreError("stopped", kept=f"{kept} in {folder}")
        if code != Busy.exit_code or attempt == 19:
            break
        time.sleep(0.5)
    text = path.read_bytes()[began:].decode(errors="replace").strip().splitlines()
    last = shown(text[-1].strip().removeprefix("lore: "), 300) if text else f"exit code {code}"
    kind = NoSpace if code == NoSpace.exit_code else LoreError
    error = kind(f"{module} in {folder} failed: {last}", kept=kept, hint=f"read {path}; run again to go on")
    error.exit_code = code if 0 < code < 126 else 1
    raise error


def train_in_process(job: TrainJob, root: str) -> dict[str, Any]:
    """Train one run to its end, or on from its checkpoint, in a process with one thread; returns its last progress."""
    folder = Path(job.folder)
    words = ["--folder", str(folder), "--quiet", *arguments(job.config)]
    run_child("lore.main", words, folder, "log.txt", {"LORE_DATASETS": root})
    return last_row(folder / "progress.jsonl") or {}


def evaluate_in_process(job: EvaluateJob, root: str) -> dict[str, Any]:
    """Evaluate one run in a process with one thread; returns the content of its ``evaluation.json``."""
    folder = Path(job.folder)
    words = ["eval", str(folder), "--episodes", str(job.episodes), "--seed", str(job.seed)]
    (folder / EVALUATION_PROGRESS).unlink(missing_ok=True)
    words += ["--record", str(job.record), "--progress", str(folder / EVALUATION_PROGRESS)]
    run_child("flows", words, folder, "evaluation-log.txt", {"LORE_DATASETS": root})
    return json.loads((folder / "evaluation.json").read_text())


def stop_processes(folders: Collection[str] | None = None) -> None:
    """End the children of this process, those for ``folders`` or all: they save first.

    Waiting threads then return with an error.
    """
    _stopping.set()
    try:
        chosen = [p for folder, p in list(_running.values()) if folders is None or str(folder) in folders]
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:  # all save at once
            list(pool.map(lambda process: stop(process, 15.0), chosen))
    finally:
        threading.Timer(1.0, _stopping.clear).start()


def side_by_side(
    work: Callable[[Any, str], dict[str, Any]], jobs: Sequence[Any], root: str, progress: str, totals: Sequence[int]
) -> list[dict[str, Any]]:
    """``work(job, root)`` for every job at once, in threads that wait for their children; results in order."""
    from concurrent.futures import wait as wait_for

    names = [Path(job.folder).name for job in jobs]
    paths = {name: Path(job.folder) / progress for name, job in zip(names, jobs, strict=True)}
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        futures = [pool.submit(work, job, root) for job in jobs]
        follow(paths, dict(zip(names, totals, strict=True)), lambda: not wait_for(futures, timeout=0.5).not_done)
        return [future.result() for future in futures]


def follow(paths: dict[str, Path], totals: dict[str, int], finished: Callable[[], bool]) -> None:
    """Show one bar per progress file until ``finished()``, from the moment on at which its folder is there: a run that
    waits for a core has none. Ends the children when interrupted."""
    try:
        with current().bars() as add:
            bars, last = {}, False
            while True:
                for name, path in paths.items():
                    row = last_row(path)
                    if name not in bars and path.parent.exists():
                        bars[name] = add(name, totals[name])
                    if row is not None:
                        bars[name].update(row["step"], row.get("total"), _note(row), waits(row))
                if last:
                    return
                last = finished()
    except BaseException:
        stop_processes()
        raise


def _note(row: dict[str, Any]) -> str:
    parts = []
    if row.get("episode_return") is not None:
        parts.append(f"return {row['episode_return']:.1f}")
    if row.get("updates"):
        parts.append(f"{row['updates']:,} updates")
    return ", ".join(parts)
