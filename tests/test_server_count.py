"""The count that keeps ``make test`` at one Prefect server."""

import importlib.util
from pathlib import Path

import psutil

spec = importlib.util.spec_from_file_location("server_count", Path(__file__).with_name("server_count.py"))
server_count = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server_count)


class Process:
    def __init__(self, pid, ppid, line):
        self.pid, self.parent, self.line = pid, ppid, line

    def cmdline(self):
        if not self.line:
            raise psutil.NoSuchProcess(self.pid)
        return self.line.split()

    def ppid(self):
        return self.parent

    def create_time(self):
        return float(self.pid)


def test_a_server_and_what_it_starts_count_once_and_others_not_at_all():
    running = [
        Process(10, 1, "python -m flows demo --quick"),
        Process(11, 10, "python -m flows.jobs.child_process prefect server start --host 127.0.0.1"),
        Process(12, 11, "python -m uvicorn --factory prefect.server.api.server:create_app"),
        Process(13, 1, "python -m uvicorn --factory prefect.server.api.server:create_app"),
        Process(14, 1, "python -m flows advise --prefect"),
        Process(15, 1, ""),  # ended meanwhile
    ]
    assert list(server_count.servers(running)) == [(11, 11.0), (13, 13.0)]
