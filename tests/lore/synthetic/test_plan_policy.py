"""Plans of goals and actions in a world model: who ends when, what is passed over, and what the steps are worth."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.dreamer.types import Latent
from lore.options.heads import OptionHeads
from lore.synthetic.plan_policy import PlanPolicy
from lore.synthetic.rollout import HORIZON, foretells_unlock, roll_out
from lore.training.loop import train
from lore.training.run import Training

CELLS, A = 10, 2
LEFT, RIGHT = 0, 1
TO_6, TO_2, NEVER = A, A + 1, A + 2


class Line:
    """Cells 0..9 in a row, the latent is the cell, one-hot; reaching cell 4 pays 1."""

    @property
    def rssm(self):
        return self

    def imagine_step(self, latent, action, uniform):
        cell = (latent.deter.argmax(-1) + torch.where(action == RIGHT, 1, -1)).clamp(0, CELLS - 1)
        return at(cell)

    def predict(self, features):
        cell = features[:, :CELLS].argmax(-1)
        return (cell == 4).float(), torch.full((len(cell),), 0.9)


def at(cell) -> Latent:
    cell = torch.as_tensor(cell)
    return Latent(torch.nn.functional.one_hot(cell, CELLS).float(), torch.zeros(*cell.shape, 0, 1))


class Walks(OptionHeads):
    """Three skills known exactly: go right until cell 6, go left until cell 2, and one that can never begin."""

    def __init__(self, limit: int = 50) -> None:
        super().__init__(CELLS, A, 3, CELLS)
        self.set_limits([limit, 50, 50])
        with torch.no_grad():
            for head in (self.action, self.signs):
                head.weight.zero_()
                head.bias.fill_(-50.0)
            self.action.bias[[RIGHT, A + LEFT]] = 50.0
            ready, done = (self.signs.bias.view(3, 3)[:, 0], self.signs.weight.view(3, 3, CELLS)[:, 1])
            ready[:2] = 50.0
            done[0, 6] = done[1, 2] = 100.0

    def forward(self, features):
        return features[..., :CELLS]


def nothing(features):
    return torch.zeros(len(features))


def rolled(cell: int, plan: list[int], limit: int = 50, value=nothing):
    out = roll_out(Line(), value, at([cell]), played(plan, limit), torch.Generator().manual_seed(0))
    return out.latent.deter.argmax(-1).tolist(), out


def played(plan: list[int], limit: int = 50) -> PlanPolicy:
    return PlanPolicy(torch.tensor([plan]), torch.tensor([len(plan)]), A, Walks(limit))


def test_a_goal_is_pursued_until_it_is_reached_and_the_next_entry_follows_in_the_same_state():
    cells, out = rolled(3, [TO_6, LEFT, TO_6, TO_2])
    assert cells == [3, 4, 5, 6, 5, 6, 5, 4, 3]
    assert out.action.tolist() == [1, 1, 1, 0, 1, 0, 0, 0, 0]
    assert out.skill.tolist() == [0, 0, 0, -1, 0, 1, 1, 1, 1]
    assert out.begins.tolist() == [True, False, False, False, True, True, False, False, False]


def test_a_goal_that_is_reached_already_is_passed_over_and_one_that_cannot_begin_ends_the_plan():
    assert rolled(6, [TO_6, TO_6, LEFT])[0] == [6]
    assert rolled(4, [LEFT, NEVER, LEFT])[0] == [4]
    assert rolled(2, [TO_2])[0] == []


def test_a_goal_gives_way_at_its_skills_own_limit_of_steps():
    assert rolled(0, [TO_6, LEFT], limit=3)[0] == [0, 1, 2, 3]


def test_the_return_of_a_plan_counts_what_its_goals_pay_and_the_critic_where_it_ends():
    _, out = rolled(2, [TO_6], value=lambda features: 5.0 * features[:, 6])
    np.testing.assert_allclose(out.plan_return, [0.9 + 0.9**4 * 5, 1 + 0.9**3 * 5, 0.9**2 * 5, 0.9 * 5], rtol=1e-6)


def test_a_plan_is_imagined_for_so_many_steps_at_most():
    assert len(rolled(0, [LEFT] * 40)[0]) == HORIZON


def test_plans_of_one_call_keep_their_own_pace():
    entries, lengths = torch.tensor([[TO_6, LEFT], [RIGHT, RIGHT], [NEVER, 0]]), torch.tensor([2, 1, 1])
    out = roll_out(Line(), nothing, at([5, 0, 3]), PlanPolicy(entries, lengths, A, Walks()), None)
    assert sorted(out.latent.deter.argmax(-1).tolist()) == [0, 5, 6]


@pytest.mark.parametrize(("cell", "plan", "promised"), [(2, [TO_6], True), (5, [TO_6], False), (2, [NEVER], False)])
def test_an_unlock_is_foretold_where_a_goal_leads_to_it(cell, plan, promised):
    assert foretells_unlock(Line(), at([cell]), played(plan), torch.Generator().manual_seed(0)) == promised


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.timeout(400)
def test_a_language_models_goals_are_rolled_out_in_a_real_run_with_options_and_without(tmp_path, options):
    config = load_config(**{
        "size": "tiny", "observation": "symbolic", "batch_size": 64, "sequence_length": 8, "train_ratio": 8.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 2000, "env.length": 60, "steps": 230,
        "dataset": "crafter-claude@v1", "synthetic.enabled": True, "options.enabled": options,
        "synthetic.warmup_updates": 2, "synthetic.refresh_updates": 1, "synthetic.max_open_loop_error": 1.0,
        "save_interval_s": 3600.0, "learning_rate": 1e-3,
    })  # fmt: skip
    train(config, tmp_path, tensorboard=False)
    run = Training(config, tmp_path)
    run.restore()
    synthetic = run.learner.synthetic
    assert synthetic is not None and synthetic.rollouts > 0
    assert synthetic.planned > 0.1  # as many of the starts have a plan; the version's rows alone gave 0 of 1,020
    assert (synthetic.buffer.skill[: synthetic.buffer.size] >= 0).any()
    assert (run.policy.agent.heads is None) != options and run.policy.agent.clones is not None
