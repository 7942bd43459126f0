"""The page of speeds says what the committed JSON says, and one failing benchmark does not stop the others."""

import json

import benchmarks.__main__ as bench
from benchmarks import table
from benchmarks.record import RESULTS


def test_the_table_of_speeds_on_the_page_is_that_of_the_committed_json():
    text = table.PAGE.read_text()
    _, _, rest = text.partition(table.BEGIN)
    shown, _, after = rest.partition(table.END)
    assert after and shown.strip() == table.markdown(), "run `python -m benchmarks --table`"


def test_writing_the_table_leaves_the_rest_of_the_page_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.update_page(page)
    assert page.read_text() == f"before\n{table.BEGIN}\n{table.markdown()}\n{table.END}\nafter\n"


def test_every_row_of_the_table_names_a_benchmark_that_make_bench_runs_or_the_gpu_script():
    made = {row.result for row in bench.ROWS.values()} | {"gpu"}
    assert {row.result for row in table.ROWS} <= made
    commands = {" ".join(row.words).removeprefix("benchmarks.") for row in bench.ROWS.values()} | {"gpu --all"}
    assert {row.command for row in table.ROWS} <= commands


def test_committed_results_say_machine_and_load():
    files = sorted(RESULTS.glob("*.json"))
    assert len(files) >= 10
    for path in files:
        result = json.loads(path.read_text())
        assert len(result["machine"]["load"]) == 3, path


def test_a_benchmark_that_fails_or_hangs_is_named_and_the_next_one_runs(capsys):
    rows = {
        "broken": bench.Row(("benchmarks.there_is_none",), "none", 1),
        "hanging": bench.Row(("http.server", "--bind", "127.0.0.1", "0"), "none", 1, limit_s=1.5),
        "good": bench.Row(("json.tool", "--help"), "none", 1),
    }
    failed = bench.run(list(rows), rows)
    assert (
        set(failed) == {"broken", "hanging"} and "there_is_none" in failed["broken"] and "given up" in failed["hanging"]
    )
    printed = capsys.readouterr().out
    assert "[3/3] good" in printed and "min left" in printed and "    done" in printed
