"""How much of the advice can be read off an agent's latent: ``python -m benchmarks.latent RUN``.

RUN was kickstarted on symbolic observations. Two networks of the same form learn the first choice of the stored advice
from the records of its replay, once among slots and actions and once as the next primitive action alone: from the
latent that the actor sees, from the latent beside what each skill can do there (it can start, its goal is reached),
from these beside the view's numbers (what is carried, vitals, daylight, unlocked), and from the symbolic view.
Every fifth episode is held out. Beside them stands the run's own actor, which learned from all episodes. One thread,
about five minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lore.gate.kickstart import first_choices, slot_targets
from lore.options.interpreter import DONE
from lore.training.folder import lock_run, read_config
from lore.training.run import Training

RECORDS, EPOCHS, WIDTH = 40_000, 14, 256
NOT_ALLOWED = -1e9


def reader(inputs: Tensor, choice: Tensor, mask: Tensor, ids: Tensor) -> nn.Module:
    """A network with two hidden layers that has learned ``choice`` [N] among the entries of ``mask`` [N, A+M]."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Dropout(0.1), nn.Linear(inputs.shape[1], WIDTH), nn.LayerNorm(WIDTH), nn.SiLU(),
        nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.SiLU(), nn.Linear(WIDTH, mask.shape[1]),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, EPOCHS)
    for _ in range(EPOCHS):
        for part in ids[torch.randperm(len(ids))].split(256):
            logits = net(inputs[part].float()).masked_fill(~mask[part], NOT_ALLOWED)
            optimiser.zero_grad()
            F.cross_entropy(logits, choice[part]).backward()
            optimiser.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def agreement(net: nn.Module, inputs: Tensor, choice: Tensor, mask: Tensor, ids: Tensor) -> float:
    """Share of the records ``ids`` in which the network's first choice is that of the advice."""
    hits = [
        (net(inputs[part].float()).masked_fill(~mask[part], NOT_ALLOWED).argmax(-1) == choice[part]).float()
        for part in ids.split(4096)
    ]  # fmt: skip
    return float(torch.cat(hits).mean())


def main(folder: Path) -> None:
    """Print the figures of the run in ``folder``, which stays as it is."""
    torch.set_num_threads(1)
    run = Training(read_config(folder), folder)
    with lock_run(folder):
        run.restore()
    agent, last = run.policy.agent, int(run.replay.written[0])
    names = ("state", "advice", "confidence", "proposals", "deter", "stoch", "is_first")
    slots = np.arange(max(0, last - min(RECORDS, run.replay.slots)), last) % run.replay.slots
    records = {name: torch.as_tensor(value) for name, value in run.replay.records(0, slots, names).items()}
    proposals, of_slot = records["proposals"].long(), run.learner.slots.cpu()
    first = first_choices(records["advice"].float())
    advised, primitive = slot_targets(first, proposals, of_slot, agent.num_actions)
    allowed = (of_slot >= 0) & (proposals[:, of_slot.clamp(min=0)] >= 0)
    mask = torch.cat([allowed.new_ones(len(allowed), agent.num_actions), allowed], 1)
    usable = (records["confidence"] > 0) & (advised.sum(-1) > 0.5)
    is_action = (torch.arange(mask.shape[1]) < agent.num_actions).expand_as(mask)
    asked = {"slots and actions": (advised.argmax(-1), mask), "the next action": (primitive.argmax(-1), is_action)}
    stoch = F.one_hot(records["stoch"].long(), agent.world_model.size.classes).flatten(1)
    view = F.one_hot(records["state"].long().clamp(max=23), 24).to(torch.uint8)
    latent, cells = torch.cat([records["deter"].half(), stoch], 1), run.policy.environment.layout.offsets()["view"].stop
    can = torch.cat([latent, proposals >= 0, proposals == DONE], 1)
    views = {
        "latent": latent,
        "latent and what skills can do": can,
        "latent, what skills can do, numbers": torch.cat([can, view[:, cells:].flatten(1)], 1),
        "view": view.flatten(1),
    }
    episode = records["is_first"].long().cumsum(0)
    held_out = torch.nonzero(usable & (episode % 5 == 0))[:, 0]
    learned = torch.nonzero(usable & (episode % 5 != 0))[:, 0]
    print(f"{folder}: {len(learned):,} records to learn from, {len(held_out):,} of other episodes")
    for what, (choice, among) in asked.items():
        print(f"{what}:")
        for name, inputs in views.items():
            net = reader(inputs, choice, among, learned)
            found = [agreement(net, inputs, choice, among, ids) for ids in (learned, held_out)]
            print(f"  from the {name}: {found[0]:.2f} of what was learned from, {found[1]:.2f} of the held-out records")
        own = agreement(agent.actor_critic.actor, views["latent"], choice, among, held_out)
        print(f"  the run's actor: {own:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
