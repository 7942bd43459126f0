"""Children die with their parent, however it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from flows.jobs.child_process import spawn, stop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PARENT = """
import sys, time
from pathlib import Path
from flows.jobs.child_process import spawn
child = spawn("sleeper", env={"PYTHONPATH": sys.argv[1]}, log=Path(sys.argv[1]) / "log")
print(child.pid, flush=True)
time.sleep(60)
"""
SLEEPER = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
time.sleep(60)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_killed_parent_takes_its_child_and_grandchild_along(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    log = tmp_path / "log"
    assert wait_for(lambda: log.exists() and log.read_text().strip())
    grandchild = int(log.read_text())
    assert alive(child) and alive(grandchild)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not alive(child) and not alive(grandchild))


def test_stop_ends_a_child_that_ignores_the_polite_signal(tmp_path):
    (tmp_path / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    child = spawn("deaf", env={"PYTHONPATH": str(tmp_path)}, log=tmp_path / "log")
    assert wait_for(lambda: (tmp_path / "log").read_text().strip() == "up")
    assert stop(child, 0.3) == -signal.SIGKILL
    assert not alive(child.pid)


def test_a_child_sees_its_arguments_and_its_code_comes_back(tmp_path):
    (tmp_path / "adds.py").write_text("import sys\nprint(sys.argv[1:], __name__)\nsys.exit(int(sys.argv[1]))\n")
    child = spawn("adds", ["7", "--x"], env={"PYTHONPATH": str(tmp_path)}, log=tmp_path / "log")
    assert child.wait(20) == 7
    assert stop(child) == 7
    assert (tmp_path / "log").read_text().strip() == "['7', '--x'] __main__"
    assert not os.path.exists(f"/proc/{child.pid}")
