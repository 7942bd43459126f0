"""The same update and policy step in another DreamerV3, beside ours: size ``1m``, pixels, Crafter's 17 actions, CPU.

``python -m benchmarks.peers --python PEER/bin/python`` measures sheeprl (its class of the 2025 paper, configuration
``dreamer_v3_5_1M``, its own ``train`` and player) in that interpreter, so that its requirements stay out of ours:

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 sheeprl==0.8.4

Both processes live at once and are asked in turn, so that a busy machine is as busy for each; each call is measured by
the process that makes it. Replay against TorchRL's buffer is the row ``replay`` of :mod:`benchmarks.speed`.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "measure"]

ROWS = {"update 16x64": (2, 5, 1), "policy step, batch 1": (1, 8, 20), "policy step, batch 8": (1, 8, 20)}
"""Row -> (threads, turns, calls in a turn)."""
ACTIONS, SEQUENCES, LENGTH = 17, 16, 64


def ours() -> dict[str, Callable[[], Any]]:
    """Our calls by row."""

    from benchmarks.speed import make_learner
    from lore.config import load_config
    from lore.fast.accelerate import divide_threads
    from lore.sizes import SIZES
    from lore.training.policy import Policy

    mine, records = make_learner("1m", "pixels", SEQUENCES, LENGTH, threads=2)
    works: dict[str, Callable[[], Any]] = {"update 16x64": lambda: mine.update(records)}
    for envs in (1, 8):
        config = load_config(size="1m", observation="pixels", num_envs=envs, threads=1)
        policy = Policy(config)
        steps = policy.make_envs().reset()
        works[f"policy step, batch {envs}"] = lambda policy=policy, steps=steps: policy.act(steps)

    def divided(row: str, work: Callable[[], Any]) -> Callable[[], Any]:
        """``work`` with the threads of its row between compiled loops and torch, as a run divides them."""
        return lambda: (divide_threads(ROWS[row][0], SIZES["1m"]), work())

    return {row: divided(row, work) for row, work in works.items()}


def sheeprl() -> tuple[str, dict[str, Callable[[], Any]]]:
    """sheeprl's version and calls by row; nothing of this repository is imported."""
    import gymnasium
    import hydra
    import numpy as np
    import torch
    from lightning.fabric import Fabric
    from omegaconf import OmegaConf
    from sheeprl import __version__
    from sheeprl.algos.dreamer_v3_5.agent import build_agent
    from sheeprl.algos.dreamer_v3_5.dreamer_v3_5 import train, update_target_critic
    from sheeprl.algos.dreamer_v3_5.utils import Moments, prepare_obs
    from sheeprl.utils.utils import dotdict

    space = gymnasium.spaces.Dict({"rgb": gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8)})
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")

    def agent(envs: int) -> tuple[Any, tuple[Any, ...]]:
        words = ["exp=dreamer_v3_5", "algo=dreamer_v3_5_1M", "env=dummy", f"env.num_envs={envs}", "metric.log_level=0"]
        words += [f"algo.per_rank_batch_size={SEQUENCES}", f"algo.per_rank_sequence_length={LENGTH}"]
        words += ["algo.cnn_keys.encoder=[rgb]", "algo.mlp_keys.encoder=[]", "algo.total_steps=1"]
        with hydra.initialize_config_module("sheeprl.configs", version_base="1.3"):
            composed = hydra.compose("config", words)
        cfg = dotdict(OmegaConf.to_container(composed, resolve=True))
        return cfg, build_agent(fabric, (ACTIONS,), False, cfg, space)

    cfg, (world, actor, critic, target, _) = agent(1)
    parameters = [*world.parameters(), *actor.parameters(), *critic.parameters()]
    optimizer = hydra.utils.instantiate(cfg.algo.optimizer, params=parameters, _convert_="all")
    optimizer = fabric.setup_optimizers(optimizer)
    m = cfg.algo.actor.moments
    moments = Moments(m.decay, m.max, m.percentile.low, m.percentile.high)
    rng, shape, sizes = np.random.default_rng(0), (LENGTH + 1, SEQUENCES), cfg.algo.world_model
    data = {
        "rgb": torch.from_numpy(rng.integers(0, 256, (*shape, 3, 64, 64), np.uint8)),
        "actions": torch.eye(ACTIONS)[torch.from_numpy(rng.integers(0, ACTIONS, shape))],
        "deter": torch.zeros(*shape, sizes.recurrent_model.recurrent_state_size, dtype=torch.float16),
        "stoch": torch.zeros(*shape, sizes.stochastic_size, dtype=torch.uint8),
    } | {name: torch.zeros(*shape, 1) for name in ("rewards", "terminated", "truncated", "is_first")}

    def update() -> None:
        train(fabric, cfg, world, actor, critic, target, optimizer, moments, data, None, (ACTIONS,))
        update_target_critic(critic, target, cfg.algo.critic.tau)

    works: dict[str, Callable[[], Any]] = {"update 16x64": update}
    for envs in (1, 8):
        player = agent(envs)[1][-1]
        player.init_states()
        frames = {"rgb": rng.integers(0, 256, (envs, 3, 64, 64), np.uint8)}

        def step(player: Any = player, frames: Any = frames, envs: int = envs) -> None:
            with torch.inference_mode():
                actions = player.get_actions(prepare_obs(fabric, frames, cnn_keys=["rgb"], num_envs=envs))
                torch.stack([a.argmax(-1) for a in actions], -1).numpy()

        works[f"policy step, batch {envs}"] = step
    return f"sheeprl {__version__}, {sum(p.numel() for p in parameters):,} parameters", works


def answer(name: str, works: dict[str, Callable[[], Any]]) -> None:
    """Say ``name``, then take a turn at what each line asks for and print [CPU s, wall s] of its calls."""
    import torch

    out, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    print(json.dumps([name, torch.__version__]), file=out, flush=True)
    for line in sys.stdin:
        row = line.strip()
        torch.set_num_threads(ROWS[row][0])
        times = []
        for _ in range(ROWS[row][2]):
            cpu, wall = time.process_time(), time.perf_counter()
            works[row]()
            times.append([time.process_time() - cpu, time.perf_counter() - wall])
        print(json.dumps(times), file=out, flush=True)


def measure(python: str, scale: float = 1.0) -> dict[str, Any]:
    """Rows of ours and of the peer in turn, medians with spread, and the peer's CPU seconds over ours."""
    from benchmarks.record import spread

    here = Path(__file__).resolve()
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    words = {"ours": [sys.executable, "-m", "benchmarks.peers", "--answer", "ours"]}
    words["peer"] = [python, str(here), "--answer", "sheeprl"]
    sides = {
        name: subprocess.Popen(
            w, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=here.parents[1]
        )
        for name, w in words.items()
    }

    def ask(name: str, row: str) -> list[list[float]]:
        pipes = sides[name]
        assert pipes.stdin is not None and pipes.stdout is not None
        pipes.stdin.write(row + "\n")
        pipes.stdin.flush()
        return json.loads(pipes.stdout.readline())

    try:
        names = {name: json.loads(side.stdout.readline() or "[]") for name, side in sides.items() if side.stdout}
        out: dict[str, Any] = {"peer": names["peer"][0], "peer_torch": names["peer"][1], "rows": {}}
        for row, (threads, turns, calls) in ROWS.items():
            found: dict[str, list[list[float]]] = {"ours": [], "peer": []}
            for i in range(max(1, round(turns * scale)) + 2):
                for name in found:
                    times = ask(name, row)
                    if i > 1:  # the first two warm up
                        found[name] += times
            result: dict[str, Any] = {"threads": threads, "calls_in_a_turn": calls, "n": len(found["ours"])}
            for name, times in found.items():
                cpu, wall = zip(*times, strict=True)
                result[name] = {"cpu_s": spread(cpu), "wall_s": spread(wall)}
            result["peer_over_ours"] = result["peer"]["cpu_s"]["median"] / result["ours"]["cpu_s"]["median"]
            out["rows"][row] = result
        return out
    finally:
        for side in sides.values():
            side.kill()
            side.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write ``results/peers.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--python", default=os.environ.get("LORE_PEER_PYTHON", ""), help="interpreter that has sheeprl")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the turns to take")
    parser.add_argument("--answer", choices=("ours", "sheeprl"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.answer:
        answer(*(("ours", ours()) if args.answer == "ours" else sheeprl()))
        return 0
    if not args.python:
        print("no peer: give --python, an interpreter that has sheeprl", file=sys.stderr)
        return 2
    from benchmarks.record import write

    result = measure(args.python, args.scale)
    print(
        write("peers", result, f"python -m benchmarks.peers --python PEER/bin/python --scale {args.scale}").read_text()
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
