"""Everything that is read from outside is read right or refused with an error of ours, whatever it holds.

``make test`` tries some examples of each, ``make fuzz SECONDS=60`` as many as there is time for. Examples that once
failed stand beside their target.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flows.lab.schedules import read_notify, read_schedules
from lore.config import Config, load_config, to_dict
from lore.training import checkpoint
from lore.training.folder import read_config
from lore_datasets.environments import get_environment
from lore_datasets.errors import AnswerError, LoreError, ProgramError, SkillError
from lore_datasets.exchange.hdf5 import export_hdf5, read_hdf5
from lore_datasets.language.programs import parse_program
from lore_datasets.language.skills import MAX_BOUND, bound, parse_skill
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from pipeline.llm.base import Prompt, Response
from pipeline.llm.journal.journal import Journal
from pipeline.questions.parse import parse
from tests.fuzz.mutations import damaged, damages, texts

ENV = get_environment("crafter")
SKILLS = tuple(skill.name for skill in ENV.skills)
ROOT = Path(__file__).parents[2]
COUNT = 4000 if os.environ.get("LORE_FUZZ") else 24
some = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(some, max_examples=max(10, COUNT // 4))

ANSWERS = [
    '{"ranked": ["explore", "do"], "confidence": 0.5, "reason": "trees"}',
    '{"plans": [{"steps": [{"do": "collect_wood", "times": 2}, {"do": "do"}], "score": 0.5}]}',
    '<think>{"ranked": []}</think>\n```json\n{"ranked": ["do"], "confidence": 1}\n```',
    json.dumps({"skills": [json.loads(ENV.skills[0].to_json())]}),
    (ROOT / "datasets/lore_datasets/environments/crafter/program.json").read_text(),
    "(B)",
]


@some
@given(text=texts(ANSWERS), kind=st.sampled_from(["prior", "plan", "skills", "program"]))
@example(text='{"ranked": ["do"], "confidence": 1e999}', kind="prior")
def test_an_answer_is_finite_advice_or_an_answer_error(text, kind):
    prompt = Prompt(kind, "", "", options=("explore", "do"))
    try:
        advice = parse(Response(text), prompt, frozenset((*ENV.vocab.actions, *SKILLS)))
    except AnswerError:
        return
    numbers = [advice.confidence, advice.weight, *(p for _, p in advice.choices), *(p.score for p in advice.plans)]
    assert all(math.isfinite(n) for n in numbers) and advice.kind == kind


@some
@given(text=texts([skill.to_json() for skill in ENV.skills]))
def test_a_skill_is_bounded_and_reads_back_or_is_refused(text):
    try:
        skill = parse_skill(text, ENV.vocab)
    except SkillError:
        return
    assert 0 < bound(skill) <= MAX_BOUND and parse_skill(skill.to_json(), ENV.vocab) == skill


@some
@given(text=texts([(ROOT / "datasets/lore_datasets/environments/crafter/program.json").read_text()]))
def test_a_program_has_one_canonical_form_or_is_refused(text):
    try:
        program = parse_program(text, ENV.vocab, SKILLS)
    except ProgramError:
        return
    assert parse_program(program.text, ENV.vocab, SKILLS).text == program.text


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, bytes, dict]:
    folder = tmp_path_factory.mktemp("exported")
    small_advice(folder / "s", ENV, 3, skills=ENV.skills[:2])
    export_hdf5(Store(folder / "s"), "small", folder / "x.h5")
    return folder / "x.h5", (folder / "x.h5").read_bytes(), read_hdf5(folder / "x.h5").arrays


@few
@given(damage=damages(4096))
def test_an_export_with_a_wrong_header_gives_the_same_arrays_or_an_error_of_ours(exported, damage):
    path, whole, arrays = exported
    path.write_bytes(damaged(whole, damage))
    try:
        found = read_hdf5(path).arrays
    except LoreError:
        return
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], a) for name, a in arrays.items())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("saved") / "checkpoint.safetensors"
    checkpoint.save(path, {"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.int64)}, {"frames": 3})
    return path, path.read_bytes()


@few
@given(damage=damages(300))
def test_a_checkpoint_with_a_wrong_header_is_whole_or_an_error_of_ours(saved, damage):
    path, whole = saved
    path.write_bytes(damaged(whole, damage))
    try:
        tensors, meta = checkpoint.load(path)
    except LoreError:
        return
    assert torch.equal(tensors["a"], torch.arange(6.0)) and meta["frames"] == 3


@few
@given(text=texts(['{"schema": 2, "frames": 3}', '{"schema": 2, "segments": [], "replay": {}}']))
@example(text="[" * 3000)
def test_meta_data_of_a_checkpoint_that_is_wrong_is_an_error_of_ours(saved, text):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, saved[0], {"lore": text, "sha256": "0" * 64})
    with pytest.raises(LoreError):
        checkpoint.load(saved[0])


SCHEDULES = [
    (ROOT / "schedules.toml").read_text(),
    'notify = ["sh", "x"]\n[a]\nflow = "refresh-round"\ncron = "0 3 * * *"\n[a.job]\nfolder = "r"\nvisits = 20\n',
    '[b]\nflow = "ablate"\ninterval = "30m"\ntimezone = "Asia/Tokyo"\nactive = false\njob = {steps = 10}\n',
]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files") / "file"


@few
@given(text=texts(SCHEDULES))
def test_a_file_of_schedules_is_read_whole_or_refused_with_its_line(file, text):
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read in (read_schedules, read_notify):
        try:
            read(file)
        except LoreError as error:
            assert str(file) in str(error)


CONFIG = json.dumps({"config": to_dict(load_config(steps=5)), "advice": "", "machine": {}})
values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)
LEAVES = [(section, name) for section, names in json.loads(CONFIG)["config"].items() for name in names]


@few
@given(text=texts([CONFIG]))
@example(text="[" * 3000)
def test_the_settings_of_a_run_are_read_or_refused(file, text):
    file.with_name("config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_config(file.parent)
    except LoreError:
        return
    assert isinstance(found, Config)


@few
@given(leaf=st.sampled_from(LEAVES), value=values)
@example(leaf=("gate", "weights"), value=None)
@example(leaf=("env", "area"), value=3)
@example(leaf=("model", "size"), value=[[1]])
@example(leaf=("train", "steps"), value=10**400)
def test_a_setting_of_any_type_is_taken_or_refused(file, leaf, value):
    body, (section, name) = json.loads(CONFIG), leaf
    body["config"][section][name] = value
    file.with_name("config.json").write_text(json.dumps(body))
    try:
        assert isinstance(read_config(file.parent), Config)
    except LoreError:
        return


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    from pipeline.llm.base import Completing

    class Echo(Completing):
        name = "echo"

        def complete(self, prompts):
            return [Response(f"answer to {p.user}", price_usd=0.01) for p in prompts]

    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    prompts = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("a",)) for i in range(12)]
    with Journal(path) as journal:
        answers = journal.ask(Echo(), prompts)
    return path, path.read_bytes(), Echo(), prompts, answers


@few
@given(damage=damages(200))
@example(damage=([(0.13671875, 128)], None))  # in the name of a column
def test_a_journal_with_wrong_bytes_serves_what_was_answered_or_an_error_of_ours(written, damage):
    path, whole, echo, prompts, answers = written
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(damaged(whole, damage))
    try:
        with Journal(path) as journal:
            assert journal.ask(echo, prompts) == answers
    except LoreError:
        return
