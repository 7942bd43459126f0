"""Speeds on one GPU, unattended: ``python -m benchmarks.gpu --all`` takes under nine minutes and ends in one table.

Needs torch, numpy and h5py only; no game is played, replay holds noise of the right shapes. Every row runs in a process
of its own, so that one that fails leaves the others alone, and is given up when its share of the time is spent.
``--device cpu --tiny`` takes the same path at toy sizes. ``--row NAME`` runs one row and prints its JSON.
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
    GraphedUpdate,
    Setting,
    make_learner,
    make_replay,
    random_batch,
    timed_updates,
)
from benchmarks.record import write

__all__ = ["ROWS", "main"]

LIMIT_S = 500.0
TARGETS = {
    "update_12m": "<= 8 ms", "update_12m_graph": "<= 8 ms", "seeds_4": ">= 3 x one",
    "seeds_8": ">= 3 x one", "replay": "inside the update", "advice_abc": "<= 1.30 x", "advice_b": "<= 1.05 x",
}  # fmt: skip


def _update(setting: Setting, size: str, bf16: bool, how: str, seconds: float = 15.0) -> dict[str, Any]:
    """Replayed on the device, sampled, updated, written back."""
    learner, replay = make_learner(setting, size, bf16), make_replay(setting, size)
    began, step = time.perf_counter(), learner.update
    if how != "eager":
        step = GraphedUpdate(learner, replay.sample(setting.sequences))
    ready = time.perf_counter() - began

    def once() -> None:
        records = replay.sample(setting.sequences)
        posterior, _ = step(records)
        replay.write_back(records["indices"], posterior.deter, posterior.stoch)

    out = timed_updates(setting, once, seconds) | {"capture_s": ready}
    out["env_steps_per_s_at_ratio_512"] = out["updates_per_s"] * setting.sequences * setting.length / 512
    out["minutes_per_million_steps_at_ratio_512"] = 1e6 / out["env_steps_per_s_at_ratio_512"] / 60
    return out


def _policy(setting: Setting, rows: int) -> dict[str, Any]:
    """Encode, posterior, actor and critic for a batch of environments, answers on the host."""
    import torch

    learner = make_learner(setting, setting.size("12m"), False)
    model, critic = learner.agent.world_model, learner.agent.actor_critic
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (rows, 64, 64, 3), np.uint8))
    latent, action = model.rssm.initial(rows), torch.zeros(rows, dtype=torch.int64, device=setting.device)
    first = torch.zeros(rows, dtype=torch.bool, device=setting.device)

    @torch.no_grad()
    def once() -> None:
        features = model.rssm.observe_step(
            model.encode(image.to(setting.device)), action, first, latent, torch.rand(rows, 32, device=setting.device)
        ).features()
        torch.cat([critic.actor(features), critic.critic(features)], -1).cpu()

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
    learner, replay = make_learner(setting, setting.size("12m"), setting.on_gpu), make_replay(setting, "12m", 4096)
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
    learners = {name: make_learner(setting, setting.size("12m"), setting.on_gpu, name) for name in out}
    batch = random_batch(setting, setting.size("12m"))
    for _ in range(1 if setting.tiny else 4):
        for name, learner in learners.items():
            out[name].append(timed_updates(setting, lambda m=learner: m.update(batch), 2.0)["ms"])
    plain, with_paths = (statistics.median(v) for v in out.values())
    return {"ms": with_paths, "plain_ms": plain, "ratio": with_paths / plain}


ROWS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "update_12m": lambda s: _update(s, s.size("12m"), s.on_gpu, "eager"),
    "update_12m_graph": lambda s: _update(s, s.size("12m"), s.on_gpu, "graph"),
    "update_1m": lambda s: _update(s, s.size("1m"), False, "eager", 8.0),
    "update_1m_graph": lambda s: _update(s, s.size("1m"), False, "graph", 8.0),
    "policy_1": lambda s: _policy(s, 1),
    "policy_8": lambda s: _policy(s, 8),
    "replay": _replay,
    "advice_b": lambda s: _advice(s, "B"),
    "advice_abc": lambda s: _advice(s, "ABC"),
    "seeds_4": lambda s: _seeds(s, 4),
    "seeds_8": lambda s: _seeds(s, 8),
}
"""Name -> measurement; those that need CUDA graphs are left out on a CPU."""
GPU_ONLY = {"update_12m_graph", "update_1m_graph", "seeds_8"}


def _headline(row: dict[str, Any]) -> str:
    if "speedup" in row:
        return f"{row['speedup']:.2f} x one"
    if "ratio" in row:
        return f"{row['ratio']:.2f} x ({row['ms']:.2f} ms)"
    return f"{row['ms']:.3f} ms" if "ms" in row else row.get("failed", "no figure")


def run_all(setting: Setting, names: list[str]) -> dict[str, Any]:
    """Every row in a process of its own; a row that fails or would not fit in the time says so."""
    began, results = time.monotonic(), {}
    for name in names:
        left = LIMIT_S - (time.monotonic() - began)
        print(f"{name} ({left:.0f} s left)", flush=True)
        if left < 20.0:
            results[name] = {"failed": "not run: out of time"}
            continue
        command = [sys.executable, "-m", "benchmarks.gpu", *setting.arguments(), "--row", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=min(left, 150.0), check=False)
        except subprocess.TimeoutExpired:
            results[name] = {"failed": "given up: took too long"}
            continue
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            results[name] = json.loads(lines[-1])
        else:
            results[name] = {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return results


def table(results: dict[str, Any]) -> str:
    """The summary: row, figure, target."""
    lines = [f"{'row':22s}{'figure':>28s}  target"]
    lines += [f"{name:22s}{_headline(row):>28s}  {TARGETS.get(name, '')}" for name, row in results.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every row (the default)")
    parser.add_argument("--row", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="some rows, each in its own process")
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
    results = run_all(setting, args.rows or [n for n in ROWS if setting.on_gpu or n not in GPU_ONLY])
    out = {"device": setting.describe(), "tiny": args.tiny, "rows": results}
    if args.out:
        args.out.write_text(json.dumps(out, indent=1) + "\n")
    elif setting.on_gpu:
        write("gpu", out)
    print(f"\n{setting.describe()}\n{table(results)}")
    return 1 if any("failed" in row for row in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
