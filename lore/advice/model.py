"""The advice model: a small ensemble over the symbolic state, distilled from one version's rows and calibrated on
held-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lore.advice.table import KeyTable
from lore_datasets.errors import BadInput

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData
    from lore_datasets.environments import Environment
    from lore_datasets.types import ArtifactRef

__all__ = ["AdviceModel", "Member", "distil", "fit", "train_arrays"]

EMBED, CHANNELS, PICTURE, HIDDEN = 8, 16, 32, 96


class Member(nn.Module):
    """One network of the ensemble -> logits [B, A+K].

    It reads the view twice: where things are (cell embedding, two 3x3 convolutions, one dense layer) and what is there
    at
    all (presence of each kind in the crop and in the 3x3 block around the player), which is what most goals hang on.
    """

    ahead: Tensor

    def __init__(self, environment: Environment, width: int) -> None:
        super().__init__()
        layout, vocab = environment.layout, environment.vocab
        self.at = layout.offsets()
        self.height, self.width, self.kinds = layout.height, layout.width, len(vocab.targets)
        self.cell = nn.Embedding(self.kinds, EMBED)
        self.conv1 = nn.Conv2d(EMBED, CHANNELS, 3, padding=1)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.picture = nn.Linear(CHANNELS * self.height * self.width, PICTURE)
        self.directions = len(vocab.directions)
        steps = torch.tensor([dy * self.width + dx for _, dx, dy, _ in vocab.directions])
        self.register_buffer("ahead", steps + (self.height // 2) * self.width + self.width // 2, persistent=False)
        counts = layout.items + layout.vitals
        scalars = 2 * counts + layout.achievements + self.directions + 2 + 3 * self.kinds
        self.dense1 = nn.Linear(PICTURE + scalars, HIDDEN)
        self.dense2 = nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, width)

    def forward(self, states: Tensor) -> Tensor:
        """Packed states uint8[B, S] -> logits float32[B, A+K]."""
        ids = states[:, self.at["view"]].long()
        cells = self.cell(ids).view(-1, self.height, self.width, EMBED).permute(0, 3, 1, 2)
        picture = F.silu(self.picture(F.silu(self.conv2(F.silu(self.conv1(cells)))).flatten(1)))
        grid = ids.view(-1, self.height, self.width)
        y, x = self.height // 2, self.width // 2
        around = self._presence(grid[:, y - 1 : y + 2, x - 1 : x + 2].flatten(1))
        facing = states[:, self.at["facing"]].long()
        front = F.one_hot(ids.gather(1, self.ahead[facing]).squeeze(-1), self.kinds).float()
        scalar = states.float()
        counts = scalar[:, self.at["inventory"].start : self.at["vitals"].stop]
        parts = [picture, self._presence(ids), around, front, counts / 9.0, (counts > 0).float()]
        parts += [F.one_hot(facing.squeeze(-1), self.directions).float(), scalar[:, self.at["sleeping"]]]
        parts += [scalar[:, self.at["daylight"]] / 255.0, scalar[:, self.at["unlocked"]]]
        return self.out(F.silu(self.dense2(F.silu(self.dense1(torch.cat(parts, -1))))))

    def _presence(self, ids: Tensor) -> Tensor:
        """Which kinds occur among ids int64 [B, n]: float32 [B, kinds]."""
        return torch.zeros(len(ids), self.kinds).scatter_(1, ids, 1.0)


class AdviceModel:
    """A calibrated ensemble; ``predict`` gives centred logits and the confidence that held-out rows support."""

    def __init__(self, members: list[Member], temperature: float) -> None:
        self.members = members
        self.temperature = temperature

    @torch.no_grad()
    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """Mean of the members' tempered softmax: float32[B, A+K] for packed states uint8[B, S]."""
        x = torch.from_numpy(np.ascontiguousarray(states))
        out = [F.softmax(m(x) / self.temperature, -1) for m in self.members]
        return torch.stack(out).mean(0).numpy()

    def predict(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits float32[B, A+K] centred and clipped to 5, known bool[B, A+K], confidence float32[B])."""
        p = self.probabilities(states)
        logits = np.log(p + 1e-4)
        logits = np.clip(logits - logits.mean(-1, keepdims=True), -5.0, 5.0)
        return logits.astype(np.float32), np.ones(p.shape, bool), p.max(-1).astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Weights as ``model/<member>.<parameter>``."""
        return {
            f"model/{i}.{name}": value.detach().numpy().astype(np.float32)
            for i, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], environment: Environment) -> AdviceModel:
        """Inverse of :meth:`to_arrays`; BadInput when the weights do not fit the environment."""
        count = len({name.split("/")[1].split(".")[0] for name in arrays if name.startswith("model/")})
        members = []
        for i in range(count):
            prefix = f"model/{i}."
            weights = {
                name.removeprefix(prefix): torch.from_numpy(np.array(value))
                for name, value in arrays.items()
                if name.startswith(prefix)
            }
            if "out.bias" not in weights:
                raise BadInput(
                    f"advice model: member {i} has no output layer", hint="distil it again from its advice version"
                )
            member = Member(environment, len(weights["out.bias"]))
            try:
                member.load_state_dict(weights)
            except RuntimeError as error:
                raise BadInput(
                    f"advice model does not fit {environment.name}: {str(error).splitlines()[0]}",
                    hint="distil it again from its advice version",
                ) from None
            members.append(member.eval())
        temperature = float(arrays["calibration/temperature"].reshape(-1)[0])
        return AdviceModel(members, temperature)


def fit(
    states: np.ndarray, logits: np.ndarray, confidence: np.ndarray, environment: Environment, *,
    members: int = 2, epochs: int = 30, batch: int = 64, seed: int = 0,
) -> list[Member]:  # fmt: skip
    """Train the ensemble on soft targets softmax(logits) weighted by confidence; states uint8[N, S], logits
    float32[N, A+K]."""
    x, target = (
        torch.from_numpy(np.ascontiguousarray(states)),
        F.softmax(torch.from_numpy(np.ascontiguousarray(logits)) * 2.0, -1),
    )
    weight = torch.from_numpy(np.ascontiguousarray(confidence)).float().clamp_min(0.05)
    out = []
    for k in range(members):
        generator = torch.Generator().manual_seed(seed * 1000 + k)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + k)
            member = Member(environment, logits.shape[1])
        updates = max(1, epochs * -(-len(x) // batch))
        optimiser = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=updates + 1)
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=generator).split(batch):
                loss = (-(target[index] * F.log_softmax(member(x[index]), -1)).sum(-1) * weight[index]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        out.append(member.eval())
    return out


def _calibrate(model: AdviceModel, states: np.ndarray, best: np.ndarray) -> float:
    """Temperature that minimises the negative log-likelihood of held-out choices."""
    candidates = np.geomspace(0.5, 4.0, 19)
    losses = []
    for temperature in candidates:
        model.temperature = float(temperature)
        p = model.probabilities(states)
        losses.append(-np.log(p[np.arange(len(best)), best] + 1e-8).mean())
    return float(candidates[int(np.argmin(losses))])


def distil(ref: ArtifactRef, store: Any, *, epochs: int = 30, seed: int = 0) -> ArtifactRef:
    """Train, calibrate and commit the advice model of one version as its child; ``store`` is a ``lore_datasets``
    store."""
    from lore_datasets.advice import load_advice

    data = load_advice(str(ref), root=store.root)
    arrays, report = train_arrays(data, epochs=epochs, seed=seed)
    writer = store.writer(
        f"{ref.name}-model", "advice_model", environment=data.environment.name, parents=(str(ref),),
        actions=data.actions, skills=tuple(s.name for s in data.skills),
        config={"epochs": epochs, "seed": seed}, provenance={"rows_digest": ref.digest, **report},
    )  # fmt: skip
    for path, array in arrays.items():
        group, _, name = path.rpartition("/")
        writer.append(group, **{name: array})
    writer.count(rows=len(data.rows.state))
    return writer.commit(f"advice model of {ref}")


def train_arrays(
    data: AdviceData, *, epochs: int = 30, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(weights and calibration arrays, held-out figures) for one advice version."""
    rows = data.rows
    n = len(rows.state)
    if n < 20:
        raise BadInput(f"{data.ref} has {n} rows, too few to distil", hint="advise at least 20 states")
    order = np.random.default_rng(seed).permutation(n)
    held, kept = order[: max(10, n // 10)], order[max(10, n // 10) :]
    best = rows.logits.argmax(-1)
    members = fit(
        rows.state[kept], rows.logits[kept], rows.confidence[kept], data.environment, epochs=epochs, seed=seed
    )
    model = AdviceModel(members, 1.0)
    model.temperature = _calibrate(model, rows.state[held], best[held])
    p = model.probabilities(rows.state[held])
    table = KeyTable(rows.key_goal[kept], rows.logits[kept], rows.mask[kept].astype(bool), rows.confidence[kept])
    at = table.find(rows.key_goal[held])
    hit = at >= 0
    goal_agreement = float((table.logits[at[hit]].argmax(-1) == best[held][hit]).mean()) if hit.any() else 0.5
    report = {
        "held_out_rows": float(len(held)),
        "model_agreement": float((p.argmax(-1) == best[held]).mean()),
        "model_confidence": float(p.max(-1).mean()),
        "goal_coverage": float(hit.mean()),
        "goal_agreement": goal_agreement,
        "temperature": model.temperature,
    }
    arrays = model.to_arrays()
    for name in ("temperature", "goal_agreement", "model_agreement"):
        arrays[f"calibration/{name}"] = np.array([report[name]], np.float32)
    return arrays, report
