"""What an agent alone decides otherwise than its advice, and what that costs."""

import re

from benchmarks import alone
from lore.config import load_config
from lore.training.loop import train

ROW = re.compile(r"^\| ([a-z0-9, ]+) \| (-?\d+\.\d) \(.*\) \| \d+\.\d \| (\d+) \|$", re.M)


def test_every_form_has_its_row_and_over_primitive_actions_the_advice_is_obeyed_without_skills(
    tmp_path, capsys, monkeypatch
):
    train(load_config(
        size="tiny", observation="symbolic", batch_size=32, sequence_length=8, steps=40, threads=1, train_ratio=2.0,
        dataset="crafter-claude", **{"env.length": 60, "gate.enabled": True, "options.enabled": True,
                                     "options.max_options": 0},
    ), tmp_path, tensorboard=False)  # fmt: skip
    monkeypatch.setattr(alone, "EPISODES", 2)
    seen = []
    decide = alone.Watched._decide

    def noted(self, here, number, foretell):
        action = decide(self, here, number, foretell)
        seen.append((self.form, self.charges[here.env].skill >= 0, action, self._wanted(here)))
        return action

    monkeypatch.setattr(alone.Watched, "_decide", noted)
    alone.main(str(tmp_path))
    out = capsys.readouterr().out
    assert [name for name, *_ in ROW.findall(out)] == list(alone.FORMS)
    assert re.search(r"advice's at \d+% of its own steps,\nat \d+% of those", out)
    bare = [one for one in seen if one[0].bare]
    assert bare and not any(in_skill for _, in_skill, *_ in bare)
    assert any(in_skill for form, in_skill, *_ in seen if not form.bare)
    told = [(action, wanted) for form, _, action, wanted in bare if form.advised and wanted >= 0]
    assert len(told) > 50 and all(action == wanted for action, wanted in told)
