"""What our reader takes for a time of day, Prefect takes too."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.lab.schedules import read_schedules
from lore_datasets.errors import LoreError

IS_LONG = bool(os.environ.get("LORE_FUZZ"))
pytestmark = [] if IS_LONG else [pytest.mark.slow]  # Prefect alone takes seconds to import
fields = st.lists(
    st.sampled_from(["*", "5L", "LW", "1#2", "R", "H", "?", "@daily"])
    | st.from_regex(r"\A(\*|[0-9]{1,2}|mon|jan|sun)(-[0-9]{1,2})?(/[0-9]{1,2})?(,[0-9]{1,2})?\Z"),
    min_size=5,
    max_size=5,
)


@settings(max_examples=2000 if IS_LONG else 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=fields)
def test_a_schedule_that_is_accepted_is_one_that_prefect_takes(tmp_path_factory, words):
    from prefect.client.schemas.schedules import CronSchedule

    file = tmp_path_factory.getbasetemp() / "schedules.toml"
    file.write_text(f'[a]\nflow = "collect"\ncron = "{" ".join(words)}"\n')
    try:
        (found,) = read_schedules(file)
    except LoreError:
        return
    CronSchedule(cron=found.cron)
