"""What a run's world model promises of each action, beside what it paid."""

import json
import re

from benchmarks import promises
from lore.config import load_config
from lore.training.loop import train

LINE = re.compile(r"^  (\w+) +promised +(-?\d\.\d+), over 0.5 in (\d\.\d\d) .* paid +(\S+) in ([\d,]+) steps$", re.M)


def test_every_action_s_promise_stands_beside_what_was_paid_for_it(tmp_path, capsys):
    train(load_config(
        size="tiny", observation="symbolic", batch_size=32, sequence_length=8, steps=300, threads=1, train_ratio=2.0,
        warmup=5, **{"env.length": 60},
    ), tmp_path, tensorboard=False)  # fmt: skip
    promises.main(tmp_path)
    out = capsys.readouterr().out
    lines = LINE.findall(out)
    assert len({name for name, *_ in lines}) == len(lines) == 17
    episodes = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert sum(int(n) for *_, n in lines) == sum(e["length"] for e in episodes) - 1  # nothing came after the last one
    paid = sum(float(mean) * int(n) for *_, mean, n in lines if mean != "–")
    assert abs(paid - sum(e["return"] for e in episodes)) < 0.3  # three digits, and the last step
    wrong, common = re.search(r"told wrong: (\d\.\d+); .* value: (\d\.\d+)", out).groups()
    assert 0.0 <= float(common) <= 0.5 and 0.0 <= float(wrong) <= 1.0
