"""How many cores this process may use."""

import os

import pytest

from lore_datasets.cores import available_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_that_may_use_one_core_counts_one(tmp_path):
    before = os.sched_getaffinity(0)
    assert available_cores(tmp_path) == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, 1),
        ("0::/elsewhere\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/\n", {}, 9),
        ("4:cpu,cpuacct:/x\n1:memory:/y\n", {"cpu/x/cpu.cfs_quota_us": "25", "cpu/x/cpu.cfs_period_us": "10"}, 3),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 9),
        ("0::/a\n", {"a/cpu.max": "broken"}, 9),
        ("nonsense\n", {}, 9),
    ],
)  # fmt: skip
def test_the_quota_of_a_control_group_counts_whatever_its_version(tmp_path, monkeypatch, cgroup, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(9)), raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_cores(tmp_path) == expected
