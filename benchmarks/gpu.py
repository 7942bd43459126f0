"""Speeds on one GPU, unattended: ``python -m benchmarks.gpu --all`` takes under nine minutes and ends in one table.

Needs torch, numpy and h5py only (TorchRL for its own row); no game is played, replay holds noise of the right shapes.
Every row runs in a process of its own, so that one that fails leaves the others alone, and is written down when it has
ended: the same command again runs the rows that have no figure yet, ``--again`` all of them. ``--seconds`` is the time
for all rows together. ``--device cpu --tiny`` takes the same path at toy sizes. ``--row NAME`` runs one row and prints
its JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_parts import (
    PRECISIONS,
    CompiledUpdate,
    GraphedUpdate,
    Setting,
    make_learner,
    make_replay,
    random_batch,
    timed_updates,
)
from benchmarks.record import RESULTS, write

__all__ = ["ROWS", "main"]

LIMIT_S = 500.0
ROW_S = 150.0
TARGETS = {
    "update_12m_graph_bf16": "<= 8 ms", "seeds_4": ">= 3 x one", "seeds_8": ">= 3 x one", "streams_4": ">= 3 x one",
    "replay": "inside the update", "advice_abc": "<= 1.30 x", "advice_b": "<= 1.05 x", "torchrl_rssm_12m": "<= 1 x",
}  # fmt: skip


def _update(setting: Setting, size: str, how: str, precision: str, seconds: float = 6.0) -> dict[str, Any]:
    """Replayed on the device, sampled, updated, written back."""
    import torch

    learner, replay = make_learner(setting, setting.size(size), precision), make_replay(setting, size)
    began, step = time.perf_counter(), learner.update
    if how == "graph":
        step = GraphedUpdate(learner, replay.sample(setting.sequences))
    elif how == "compiled":
        step = CompiledUpdate(learner, "inductor" if setting.on_gpu else "eager")
        step(replay.sample(setting.sequences))
    ready = time.perf_counter() - began

    def once() -> None:
        records = replay.sample(setting.sequences)
        posterior, _ = step(records)
        replay.send_back(
            records["indices"], posterior.deter, posterior.stoch, where=learner.optimiser.finite
        )()  # fmt: skip

    out = timed_updates(setting, once, seconds) | {"ready_s": ready}
    if setting.on_gpu:
        out["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    out["env_steps_per_s_at_ratio_512"] = out["updates_per_s"] * setting.sequences * setting.length / 512
    out["minutes_per_million_steps_at_ratio_512"] = 1e6 / out["env_steps_per_s_at_ratio_512"] / 60
    return out


def _acting(setting: Setting, rows: int) -> dict[str, Any]:
    """A step of acting in so many environments: observations to the device, answers on the host."""
    from types import SimpleNamespace

    import torch

    from lore.envs.base import Step
    from lore.training.player import Player

    learner = make_learner(setting, setting.size("12m"))
    controller: Any = SimpleNamespace(gate=None)
    player = Player(learner.agent, controller, rows, torch.device(setting.device), learner.generator)
    frames = np.random.default_rng(0).integers(0, 256, (rows, 64, 64, 3), np.uint8)
    steps = [Step(np.zeros(0, np.uint8), frame, 0.0, False, False, False, {}) for frame in frames]

    def once() -> None:
        with torch.no_grad():
            player._think(steps)

    return timed_updates(setting, once, 5.0)


def _replay(setting: Setting) -> dict[str, Any]:
    """Windows of 65 records gathered on the device, and latents written back."""
    replay = make_replay(setting, setting.size("12m"))
    records = replay.sample(setting.sequences)
    out = {"sample": timed_updates(setting, lambda: replay.sample(setting.sequences), 3.0)}
    deter, stoch = records["deter"][:, 1:].float(), records["stoch"][:, 1:]
    import torch

    onehot = torch.nn.functional.one_hot(stoch.long(), setting.sizes()[setting.size("12m")].classes)
    out["write_back"] = timed_updates(setting, lambda: replay.write_back(records["indices"], deter, onehot), 3.0)
    return {"ms": out["sample"]["ms"] + out["write_back"]["ms"], **out}


def _seed_worker(arguments: list[str], start: float, seconds: float) -> None:
    """One seed of the row ``seeds_N``: updates between two moments of the wall clock, counted on stdout."""
    setting = Setting.parse(arguments)
    learner, replay = make_learner(setting, setting.size("12m")), make_replay(setting, "12m", 4096)
    batch = replay.sample(setting.sequences)
    step = GraphedUpdate(learner, batch) if setting.on_gpu else learner.update
    step(batch)
    count = 0
    while time.time() < start:
        time.sleep(0.01)
    late = time.time() - start
    while time.time() < start + seconds:
        step(replay.sample(setting.sequences))
        setting.wait()
        count += 1
    print(json.dumps({"updates": count, "late_s": late}))


def _seeds(setting: Setting, count: int) -> dict[str, Any]:
    """``count`` processes that train a seed each at once, against one alone."""
    out: dict[str, Any] = {}
    ready, seconds = (25.0, 12.0) if setting.on_gpu else (30.0, 3.0)
    for seeds in (1, count):
        command = [sys.executable, "-m", "benchmarks.gpu", *setting.arguments()]
        command += ["--seed-worker", f"{time.time() + ready + 2 * seeds:.2f}", f"{seconds}"]
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(seeds)]
        try:
            answers = [w.communicate(timeout=ready + 2 * seeds + 4 * seconds + 60)[0] for w in workers]
        finally:
            for worker in workers:
                worker.kill()
        updates = [json.loads(a.strip().splitlines()[-1]) for a in answers]
        out[f"updates_per_s_{seeds}"] = sum(u["updates"] for u in updates) / seconds
        out[f"late_s_{seeds}"] = max(u["late_s"] for u in updates)
    return out | {"speedup": out[f"updates_per_s_{count}"] / out["updates_per_s_1"]}


def _advice(setting: Setting, paths: str) -> dict[str, Any]:
    """An update with advice paths on against the plain one, taken in turn."""
    out: dict[str, list[float]] = {"plain": [], paths: []}
    learners = {name: make_learner(setting, setting.size("12m"), paths=name) for name in out}
    batch = random_batch(setting, setting.size("12m"))
    for _ in range(1 if setting.tiny else 4):
        for name, learner in learners.items():
            out[name].append(timed_updates(setting, lambda m=learner: m.update(batch), 2.0)["ms"])
    plain, with_paths = (statistics.median(v) for v in out.values())
    return {"ms": with_paths, "plain_ms": plain, "ratio": with_paths / plain}


def _streams(setting: Setting, count: int) -> dict[str, Any]:
    """``count`` seeds in one process, each with a graph and a stream of its own, against one (on a CPU: in turn)."""
    import torch

    batch, seeds = make_replay(setting, "12m", 4096).sample(setting.sequences), []
    for _ in range(count):
        learner = make_learner(setting, setting.size("12m"))
        seeds.append(GraphedUpdate(learner, batch) if setting.on_gpu else learner.update)
    streams = [torch.cuda.Stream() for _ in seeds] if setting.on_gpu else []

    def once(some: int) -> None:
        for i, step in enumerate(seeds[:some]):
            if streams:
                with torch.cuda.stream(streams[i]):
                    step(batch)
            else:
                step(batch)

    one, all_of_them = (timed_updates(setting, lambda n=n: once(n), 5.0) for n in (1, count))
    return {"ms": all_of_them["ms"], "one_ms": one["ms"], "speedup": count * one["ms"] / all_of_them["ms"]}


def _torchrl(setting: Setting) -> dict[str, Any]:
    """The recurrent step of TorchRL's DreamerV3 (its newest release, compiled), forward and back over a horizon of
    imagination, and ours in the same process: sizes of ``12m``, its prior with a block GRU."""
    import importlib.metadata

    import torch
    from torch.nn.functional import one_hot
    from torchrl.modules import RSSMPriorV3

    from lore.dreamer.types import Latent

    learner, device = make_learner(setting, setting.size("12m"), "tf32"), torch.device(setting.device)
    ours, size, steps = learner.agent.world_model.rssm, learner.agent.world_model.size, learner.config.train.horizon
    theirs = RSSMPriorV3(
        action_shape=(17,), action_dim=17, hidden_dim=size.hidden, rnn_hidden_dim=size.deter,
        num_categoricals=size.stoch, num_classes=size.classes, recurrent_model="block_gru", unimix=0.01,
    ).to(device)  # fmt: skip
    compiled = torch.compile(theirs, backend="inductor" if setting.on_gpu else "eager")
    rows = setting.sequences * setting.length
    action = torch.zeros(rows, dtype=torch.int64, device=device)
    chosen, uniform = one_hot(action, 17).float(), torch.rand(rows, size.stoch, device=device)
    start = ours.initial(rows)

    def imagine_theirs() -> None:
        state, belief = start.stoch.flatten(1), start.deter
        for _ in range(steps):
            _, state, belief = compiled(state, belief, chosen)
        (belief.sum() + state.sum()).backward()

    def imagine_ours() -> None:
        latent = Latent(*start)
        for _ in range(steps):
            latent = ours.imagine_step(latent, action, uniform)
        (latent.deter.sum() + latent.stoch.sum()).backward()

    a, b = (timed_updates(setting, work, 5.0)["ms"] for work in (imagine_ours, imagine_theirs))
    return {"ms": a, "torchrl_ms": b, "ratio": a / b, "torchrl": importlib.metadata.version("torchrl")}


SIZES = ("12m", "1m", "200m")
FORMS = ("graph", "eager", "compiled")
UPDATES = {
    f"update_{size}_{how}_{precision}": (size, how, precision)
    for size in SIZES for how in FORMS for precision in reversed(PRECISIONS)
}  # fmt: skip
"""Name of an update's row -> size, form, arithmetic."""
_FIRST = ("update_12m_graph_bf16", "update_12m_eager_bf16", "update_1m_graph_tf32", "update_200m_graph_bf16")
ROWS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    name: lambda s, of=UPDATES[name]: _update(s, *of) for name in _FIRST
}  # fmt: skip
ROWS |= {
    "acting_1": lambda s: _acting(s, 1),
    "acting_8": lambda s: _acting(s, 8),
    "acting_16": lambda s: _acting(s, 16),
    "replay": _replay,
    "torchrl_rssm_12m": _torchrl,
    "streams_4": lambda s: _streams(s, 4),
    "seeds_4": lambda s: _seeds(s, 4),
    "advice_b": lambda s: _advice(s, "B"),
    "advice_abc": lambda s: _advice(s, "ABC"),
    "seeds_8": lambda s: _seeds(s, 8),
}
ROWS |= {name: lambda s, of=of: _update(s, *of) for name, of in UPDATES.items() if name not in _FIRST}
"""Name -> measurement, those that say most first; those that need CUDA graphs are left out on a CPU."""
GPU_ONLY = {"seeds_8", *(name for name in UPDATES if "_graph_" in name)}


def _headline(row: dict[str, Any]) -> str:
    if "speedup" in row:
        return f"{row['speedup']:.2f} x one"
    if "ratio" in row:
        return f"{row['ratio']:.2f} x ({row['ms']:.2f} ms)"
    return f"{row['ms']:.3f} ms" if "ms" in row else row.get("failed", "no figure")


def run_all(
    setting: Setting, names: list[str], seconds: float, done: dict[str, Any], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Every row that has no figure in ``done`` in a process of its own; a row that fails or would not fit in the time
    says so. ``keep`` gets all results after each row."""
    began, results = time.monotonic(), {name: done[name] for name in names if name in done}
    for name in names:
        left = seconds - (time.monotonic() - began)
        if name in results and "failed" not in results[name]:
            continue
        print(f"{name} ({left:.0f} s left)", flush=True)
        results[name] = _measured(setting, name, left)
        keep(results)
    return {name: results[name] for name in names}


def _measured(setting: Setting, name: str, left: float) -> dict[str, Any]:
    if left < 20.0:
        return {"failed": "not run: out of time"}
    command = [sys.executable, "-m", "benchmarks.gpu", *setting.arguments(), "--row", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=min(left, ROW_S), check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "given up: took too long"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}


def table(results: dict[str, Any]) -> str:
    """The summary: row, figure, target."""
    lines = [f"{'row':26s}{'figure':>28s}{'GiB':>7s}  target"]
    for name, row in results.items():
        peak = f"{row['peak_gib']:.1f}" if "peak_gib" in row else ""
        lines.append(f"{name:26s}{_headline(row):>28s}{peak:>7s}  {TARGETS.get(name, '')}".rstrip())
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every row (the default)")
    parser.add_argument("--row", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="some rows, each in its own process")
    parser.add_argument("--seconds", type=float, default=LIMIT_S, help="for all rows together")
    parser.add_argument("--again", action="store_true", help="measure rows anew that have a figure already")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that the path works")
    parser.add_argument("--out", type=Path, default=None, help="write the JSON there in place of benchmarks/results")
    parser.add_argument("--seed-worker", nargs=2, type=float, metavar=("START", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured (--device cpu --tiny shows that the path works)")
        return 3
    setting = Setting(args.device, args.tiny)
    if args.seed_worker:
        _seed_worker(setting.arguments(), *args.seed_worker)
        return 0
    if args.row:
        print(json.dumps(ROWS[args.row](setting)))
        return 0
    place = args.out or (RESULTS / "gpu.json" if setting.on_gpu else None)
    about, done = {"device": setting.describe(), "tiny": args.tiny}, {}
    if place is not None and place.exists() and not args.again:
        before = json.loads(place.read_text())
        done = before.get("rows", {}) if all(before.get(k) == v for k, v in about.items()) else {}

    def keep(results: dict[str, Any]) -> None:
        if args.out:
            args.out.write_text(json.dumps({**about, "rows": {**done, **results}}, indent=1) + "\n")
        elif place is not None:
            write("gpu", {**about, "rows": {**done, **results}})

    names = args.rows or [n for n in ROWS if setting.on_gpu or n not in GPU_ONLY]
    results = run_all(setting, names, args.seconds, done, keep)
    print(f"\n{setting.describe()}\n{table(results)}")
    return 1 if any("failed" in row for row in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
