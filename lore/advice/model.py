"""The advice model: a small ensemble over the symbolic state that answers where no row does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lore.advice.features import StateFeatures
from lore_datasets.errors import BadInput
from lore_datasets.schema import CLIP

if TYPE_CHECKING:
    from lore_datasets.environments import Environment

__all__ = ["AdviceModel", "Member", "is_current"]

HIDDEN, TURN = 192, 96
DROPOUT = 0.3


class Member(nn.Module):
    """One network of the ensemble: features -> logits [B, A+K].

    Goals are read off two dense layers over what has no direction; primitive actions off a third that is also shown
    which way things lie, so that rows about goals alone are not led astray by it.
    """

    def __init__(self, environment: Environment, width: int) -> None:
        super().__init__()
        self.features = StateFeatures(environment)
        self.actions, self.directed = len(environment.vocab.actions), self.features.directed
        self.dense1 = nn.Linear(self.features.width - self.directed, HIDDEN)
        self.dense2 = nn.Linear(HIDDEN, HIDDEN)
        self.turn = nn.Linear(HIDDEN + self.directed, TURN)
        self.act = nn.Linear(TURN, self.actions)
        self.out = nn.Linear(HIDDEN, width - self.actions)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, features: Tensor) -> Tensor:
        """Features uint8 [B, F] -> logits float32 [B, A+K]."""
        x = features.float() / 255.0
        plain, directed = x[:, : -self.directed], x[:, -self.directed :]
        hidden = self.dropout(F.silu(self.dense1(plain)))
        hidden = self.dropout(F.silu(self.dense2(hidden)))
        turned = self.dropout(F.silu(self.turn(torch.cat([hidden, directed], -1))))
        return torch.cat([self.act(turned), self.out(hidden)], -1)


class AdviceModel:
    """A calibrated ensemble; ``predict`` gives centred logits and the confidence that held-out rows support.

    Args:
        members: the networks. temperature: of their softmax.
        share: float32[A+K], share of the rows that speak of an entry's kind (0: never taught, never advised).
    """

    def __init__(self, members: list[Member], temperature: float, share: np.ndarray | None = None) -> None:
        self.members = members
        self.temperature = temperature
        width = members[0].actions + members[0].out.out_features
        self.share = np.ones(width, np.float32) if share is None else np.asarray(share, np.float32)

    @torch.no_grad()
    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """Mean of the members' tempered softmax: float32[B, A+K] for packed states uint8[B, S]."""
        x = torch.from_numpy(self.members[0].features(states))
        offset = torch.log(torch.from_numpy(self.share))
        out = [F.softmax(member(x) / self.temperature + offset, -1) for member in self.members]
        return torch.stack(out).mean(0).numpy()

    def predict(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(logits float32[B, A+K] centred, within +-5, known bool[B, A+K], confidence float32[B])."""
        p, taught = self.probabilities(states), self.share > 0
        logits = np.log(
            np.maximum(p, p.max(-1, keepdims=True) * math.exp(-CLIP))
        )  # so wide that centring clips nothing
        logits = (logits - logits[:, taught].mean(-1, keepdims=True)) * taught
        return logits.astype(np.float32), np.broadcast_to(taught, p.shape).copy(), p.max(-1).astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Weights as ``model/<member>.<parameter>``, and the calibration."""
        weights = {
            f"model/{i}.{name}": value.detach().numpy().astype(np.float32)
            for i, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }
        temperature = np.array([self.temperature], np.float32)
        return weights | {"calibration/temperature": temperature, "calibration/share": self.share}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], environment: Environment) -> AdviceModel:
        """Inverse of :meth:`to_arrays`; BadInput when the weights do not fit the environment or this program."""
        hint = "distil it again from its advice version: lore advise makes it anew"
        count = len({name.split("/")[1].split(".")[0] for name in arrays if name.startswith("model/")})
        if not count or not {"calibration/temperature", "calibration/share"} <= arrays.keys():
            raise BadInput("advice model of another form: it lacks its weights or its calibration", hint=hint)
        members = []
        for i in range(count):
            prefix = f"model/{i}."
            weights = {
                name.removeprefix(prefix): torch.from_numpy(np.array(value))
                for name, value in arrays.items()
                if name.startswith(prefix)
            }
            if "out.bias" not in weights or "act.bias" not in weights:
                raise BadInput(f"advice model: member {i} has no output layer", hint=hint)
            member = Member(environment, len(weights["act.bias"]) + len(weights["out.bias"]))
            try:
                member.load_state_dict(weights)
            except RuntimeError as error:
                raise BadInput(
                    f"advice model does not fit {environment.name}: {str(error).splitlines()[0]}", hint=hint
                ) from None
            members.append(member.eval())
        temperature = float(arrays["calibration/temperature"].reshape(-1)[0])
        return AdviceModel(members, temperature, arrays["calibration/share"])


def is_current(arrays: dict[str, np.ndarray], environment: Environment) -> bool:
    """True when this program can use the stored advice model."""
    try:
        AdviceModel.from_arrays(arrays, environment)
    except BadInput:
        return False
    return True
