"""What a run's world model promises of each primitive action, and what it pays: ``python -m benchmarks.promises RUN``.

From :data:`STATES` states spread over the replay of the run's first game each action is imagined once, whether it can
do anything there or not. Beside the mean of the promised rewards stands the mean reward that came after the action
where it was played. Of symbolic observations also: how much of what is unlocked, on which Crafter's rewards depend,
the reconstruction tells wrong at these states, and what always naming the commoner value would. One thread, half a
minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from lore.dreamer.types import Latent
from lore.training.folder import lock_run, read_config
from lore.training.run import Training
from lore_datasets.errors import LoreError

STATES, CERTAIN = 2_000, 0.5


@torch.no_grad()
def main(folder: Path) -> None:
    """Print the figures of the run in ``folder``, which stays as it is."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = Training(read_config(folder), folder)
    with lock_run(folder):
        run.restore()
    model, environment = run.policy.agent.world_model, run.policy.environment
    last = int(run.replay.written[0])
    kept = np.arange(max(0, last - run.replay.slots), last)
    spread = kept[np.linspace(0, len(kept) - 1, min(STATES, len(kept))).astype(int)]
    played = run.replay.records(0, kept % run.replay.slots, ("action", "reward", "is_first"))
    seen = run.replay.records(0, spread % run.replay.slots, ("deter", "stoch"))
    stoch = F.one_hot(torch.as_tensor(seen["stoch"]).long(), model.size.classes).float()
    latent = Latent(torch.as_tensor(seen["deter"]).float(), stoch)
    goes_on = ~played["is_first"][1:].astype(bool)
    print(f"{folder}: {len(spread):,} states; {len(kept):,} steps of replay")
    for action, name in enumerate(environment.vocab.actions):
        imagined = model.rssm.imagine_step(latent, torch.full((len(spread),), action), torch.rand(stoch.shape[:-1]))
        promised = model.predict(imagined.features())[0]
        paid = played["reward"][1:][goes_on & (played["action"][:-1] == action)]
        real = f"{paid.mean():6.3f}" if len(paid) else "     –"
        print(
            f"  {name:20s} promised {promised.mean():6.3f}, over {CERTAIN} in"
            f" {(promised > CERTAIN).float().mean():.2f} of the states; paid {real} in {len(paid):,} steps"
        )
    if run.config.env.observation == "symbolic":
        told = model.decoder.unlocked(latent.features())
        state = run.replay.records(0, spread % run.replay.slots, ("state",))["state"]
        true = torch.as_tensor(state)[:, -told.shape[1] :] > 0
        common = torch.minimum(true.float().mean(0), 1.0 - true.float().mean(0)).mean()
        wrong = (told != true).float().mean()
        print(f"unlocked achievements told wrong: {wrong:.3f}; by always naming the commoner value: {common:.3f}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    except LoreError as error:
        sys.exit(str(error))
