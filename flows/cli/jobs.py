"""The verbs that do work: ``lore demo | collect | advise | eval | watch | report``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from flows.config import AdviceJob, CollectJob, DemoJob, with_advice
from flows.terminal import clock, current
from lore_datasets.errors import NotFound, UsageError

__all__ = ["advise", "collect", "demo", "evaluate", "report", "watch"]

_HOME = Path("runs", "prefect")
Collect = Annotated[CollectJob, tyro.conf.arg(name="")]
Advice = Annotated[AdviceJob, tyro.conf.arg(name="")]
Demo = Annotated[DemoJob, tyro.conf.arg(name="")]


def _through(prefect: bool, flow: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """Run as a Prefect flow (on PREFECT_API_URL, else on an embedded server) or as the plain function."""
    if not prefect:
        return plain()
    from flows.prefect_flows.runtime import embedded_server

    with embedded_server(_HOME):
        return flow()


def collect(job: Collect, prefect: bool = False) -> int:
    """Play, and store the states worth asking about as the next version of a dataset.

    Args:
        job: What to do.
        prefect: Run as a Prefect flow.
    """

    def flow() -> str:
        from flows.prefect_flows.collect import collect as run

        return run(job)

    def plain() -> str:
        from flows.jobs.collect import play_states

        return str(play_states(job))

    ref = _through(prefect, flow, plain)
    print(f"{ref}\nnext: lore advise --states '{ref}' --dataset NAME")
    return 0


def advise(job: Advice, dry_run: bool = False, cancel: bool = False, prefect: bool = False) -> int:
    """Ask an adviser about stored states, store the checked answers as the next version, distil its advice model.

    Args:
        job: What to do.
        dry_run: Only say how many questions, tokens and dollars it would take.
        cancel: Only cancel the adviser's open batch jobs; what they have answered is collected by the next run.
        prefect: Run as a Prefect flow.
    """
    from flows.jobs.advise import cancel_batches, estimate
    from flows.jobs.distil import advise_and_distil
    from lore_datasets.exchange.shipped import ShippedStore

    if cancel:
        jobs, questions = cancel_batches(job)
        print(f"cancelled {jobs} batch jobs with {questions:,} questions; the next run collects what they answered")
        return 0
    if dry_run:
        found = estimate(job)
        price = "unknown price" if found.price_usd is None else f"{found.price_usd:.2f} USD"
        print(
            f"{found.adviser}: {found.questions:,} questions, {found.new:,} not asked before: at most "
            f"{found.tokens_in:,} tokens in, {found.tokens_out:,} out, {price}, about {clock(found.seconds)}; "
            f"paid so far {found.paid_usd:.4f} USD"
        )
        return 0

    def flow() -> dict[str, str]:
        from flows.prefect_flows.advise import advise as run

        return run(job)

    made = _through(prefect, flow, lambda: advise_and_distil(job))
    for kind, ref in made.items():
        print(f"{kind:<8}{ref}")
    ref = made["advice"]
    flags = with_advice(ShippedStore().manifest(ref).skills)
    print(f"next: lore datasets show '{ref}', or lore train --preset smoke {flags} --dataset '{ref}'")
    return 0


def evaluate(
    folder: Annotated[Path, tyro.conf.Positional],
    episodes: int = 10,
    seed: int = 10_000,
    record: int = 0,
    progress: Path | None = None,
) -> int:
    """Play fresh episodes with a trained agent: as trained, alone (the advice switched off), and alone with primitive
    actions only (the skills switched off too).

    Args:
        folder: The run, or a folder of runs such as that of --seeds.
        episodes: Episodes per mode and run.
        seed: Seed of the worlds, apart from training's.
        record: Keep this many episodes, from the worst to the best, frame by frame with who decided and why; the
            report shows them.
        progress: Also write progress rows to this file.
    """
    from flows.config import EvaluateJob
    from flows.jobs.evaluations import evaluate_runs, over_seeds, runs_of
    from lore.evaluation.recording import FOLDER

    job = EvaluateJob(str(folder), episodes, seed, record)
    runs = runs_of([folder])
    with current().bar("evaluate", None) as bar:

        def show(mode: str, done: int, total: int) -> None:
            bar.update(done, total, note=mode)
            if progress is not None:
                with progress.open("a") as file:
                    file.write(json.dumps({"step": done, "total": total}) + "\n")

        found = evaluate_runs(runs, job, show)
    for run, each in found.items():
        _print_modes(each["final_policy"], f"{run}: " if len(runs) > 1 else "")
        if each["unused_advice"]:
            print(each["unused_advice"])
    if len(runs) > 1:
        if (whole := over_seeds(found)) is not None:
            _print_modes(whole, f"all {len(runs)} seeds: ")
        else:
            print("the runs differ in more than their seeds: no figures over all; lore runs compare tells in what")
    if record:
        kept = ", ".join(str(run / FOLDER) for run in runs)
        print(f"recorded: {min(record, episodes)} episodes in {kept}; next: lore watch {runs[0]}")
    written = folder if len(runs) == 1 else f"each of {len(runs)} runs"
    print(f"written to evaluation.json of {written}; next: lore report {folder}")
    return 0


def _print_modes(modes: dict[str, Any], whose: str) -> None:
    for mode, result in modes.items():
        low, high = result["return_interval"]
        print(
            f"{whose}{mode.replace('_', ' '):<15} return {result['return_mean']:6.2f} ({low:.2f} to {high:.2f}), "
            f"score {result['score']:6.2f} %, {result['episodes']} episodes"
        )


def watch(
    folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None, episode: str = "best", fps: int = 10
) -> int:
    """Write a recorded episode of a run as a film: frames, what was expected, who decided and why, lanes.

    Where none is recorded, one fresh episode is played and kept.

    Args:
        folder: The run.
        out: File to write, .mp4 (needs PyAV: the extra video) or .gif; default episode.gif in the run's folder.
        episode: Which one: worst, median, best, or its number in the evaluation.
        fps: Steps of the game per second of the film.
    """
    from lore.evaluation.film import check_ending, write_film
    from lore.evaluation.recording import read_recording, recordings

    if not 1 <= fps <= 60:
        raise UsageError(f"--fps {fps} is out of range", hint="1..60")
    check_ending(out or Path("episode.gif"))
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="give the --folder of a run")
    paths = recordings(folder)
    if not paths:
        from lore.evaluation.evaluate import record_one

        with current().bar("play an episode"):
            paths = [record_one(folder)]
    found = [read_recording(path) for path in paths]
    names = [(str(each.get("place", "one")), str(each.get("number", "-"))) for each in found]
    fits = [each for each, name in zip(found, names, strict=True) if episode in name]
    if not fits and not (len(found) == 1 and episode == "best"):
        raise NotFound(
            f"{folder} has no recorded episode {episode!r}",
            hint=f"one of: {', '.join(f'{place} (number {number})' for place, number in names)}",
        )
    with current().bar("draw the film"):
        path = write_film((fits or found)[0], out or folder / "episode.gif", fps)
    print(f"film: {path.resolve()}")
    return 0


def report(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path | None = None, dataset: str = ""
) -> int:
    """Write one self-contained HTML page about one or more runs.

    Args:
        folders: The runs to show; of a folder of seeds all runs in it.
        out: File to write; default report.html in the first folder.
        dataset: Advice dataset to show; default the one that the runs name.
    """
    from flows.jobs.evaluations import runs_of
    from flows.report.read import report_advice
    from flows.report.sections import build_report, labelled

    if not folders:
        raise UsageError("lore report needs at least one run folder", hint="lore report runs/train")
    named = labelled(runs_of(folders))
    with current().bar("write the page"):
        title = f"LoRe report: {', '.join(named)}"
        path = build_report(named, out or folders[0] / "report.html", title=title, advice=report_advice(named, dataset))
    print(f"report: {path.resolve()}")
    return 0


def demo(job: Demo) -> int:
    """The whole walk on the real game: collect, advise, train two arms side by side, evaluate, report.

    A stop at any moment (Ctrl-C, a kill, a power cut) loses little: run it again and it goes on.

    Args:
        job: What to do.
    """
    from flows.jobs.demo import forget_demo
    from flows.jobs.phases import hold
    from flows.prefect_flows.runtime import close_stale_runs, embedded_server, prepare
    from lore_datasets.exchange.shipped import ShippedStore

    job = job.resolved()
    folder = Path(job.folder)
    home = folder / "prefect"
    terminal = current()
    with hold(folder):
        if job.fresh:
            forget_demo(folder)
        terminal.say("LoRe demo: advice is bought once, stored, and learned from.")
        if not job.direct:
            prepare(home)
            terminal.say("     starting the embedded Prefect server (some 15 seconds the first time)")
            with embedded_server(home):
                from flows.prefect_flows.demo import demo as run

                close_stale_runs()
                made = run(job)
        else:
            from flows.jobs.demo import plain_steps, run_demo

            made = run_demo(job, folder, plain_steps())
    for arm, found in made["evaluations"].items():
        for mode, result in found["final_policy"].items():
            if arm == "none" and mode != "as_trained":
                continue
            terminal.say(
                f"  {arm:<5} {mode.replace('_', ' '):<15} final policy: return {result['return_mean']:.2f}, "
                f"score {result['score']:.2f} % over {result['episodes']} episodes"
            )
    terminal.say(f"\nreport: {Path(made['report']).resolve()}")
    terminal.say(f"next:   lore datasets show '{made['advice']}'")
    terminal.say(f"        lore datasets export '{made['advice']}' advice.h5")
    terminal.say(f"        tensorboard --logdir {folder}")
    flags = with_advice(ShippedStore().manifest(made["advice"]).skills)
    terminal.say(f"        lore train --preset smoke --folder runs/mine {flags} --dataset '{made['advice']}'")
    return 0
