"""The command `jacobian-lab sweep STUDY [--options]`: a study for several models, digits, seeds or
other options, its pieces on all cores or on a cluster.

Each run has the folder that `jacobian-lab STUDY` would write, and is found there by it. Several
runs are on their way at once, so that workers have pieces while another run begins or is drawn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

from tqdm import tqdm

from jacobian_lab import InputError
from mnist.runs import Outcome
from studies.cli import named, parsed
from studies.combinations import Group, combinations, grouped
from studies.commands import Command, study_of
from studies.frame.cluster import Cluster
from studies.frame.errands import threads
from studies.frame.launching import (
    cluster_at,
    cluster_of_jobs,
    cores,
    local_cluster,
    visible_gpus,
)
from studies.frame.pieces import Pieces
from studies.frame.study import Study, perform

ON_THE_WAY = 8
"""Most runs at once: each holds its model in this process."""


@dataclass(frozen=True)
class SweepOptions:
    """Run a study for several models, digits, seeds or other options, on all cores or a cluster.
    Example: jacobian-lab sweep eigenvalues --model mnist oracle --digits 0:4 --times 300 700.
    Options that take one value may have several, a run for each combination; whole numbers also a
    range a:b, from a to b - 1. --digits 0:200 and --seeds 0:5 are one run of these digits and
    seeds.
    """

    workers: int | None = None
    """Processes that compute: by default as many as there are cores, or GPUs for --device cuda."""
    threads: int = 1
    """Threads that compute a piece. Sums of floats depend on it: with 1 results are to the bit
    those of OMP_NUM_THREADS=1 jacobian-lab STUDY.
    """
    scheduler: str | None = None
    """A running cluster of dask: the address of its scheduler, tcp://HOST:8786, or its scheduler
    file, FILE.json. Its workers need the same jacobian-lab, one thread each, and the models.
    """
    jobqueue: str | None = None
    """A queue of jobs, such as slurm, by dask-jobqueue and its own configuration files: --workers
    jobs are asked for.
    """

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1: got {value}")
        if self.scheduler and (self.jobqueue or self.workers):
            other = "--jobqueue" if self.jobqueue else "--workers"
            raise InputError(f"--scheduler names a cluster that has its workers: leave {other} out")


SWEEP = Command("studies.sweep", "", "SweepOptions")


@dataclass
class SweptRun:
    """A run of a sweep, and what became of it."""

    config: Any
    label: str
    """The options that tell it from the others."""
    outcome: Outcome | None = None
    error: BaseException | None = None
    pieces: int = 0
    """As many as it is known to have."""

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, well or not."""
        return self.outcome is not None or self.error is not None


def sweep(words: list[str]) -> None:
    """Run a sweep by the words of its command."""
    helps = [word for word in words if word in ("-h", "--help")]
    before, groups = grouped([word for word in words if word not in helps])
    if not before:
        if helps:
            parsed(SWEEP, "sweep STUDY", ["--help"])
        raise InputError(
            "name a study: jacobian-lab sweep STUDY [--options]; jacobian-lab --help lists them"
        )
    name, command, rest = named(before)
    if command.function or study_of(command).measures_anew:
        why = "is no study" if command.function else "measures what other processes would disturb"
        raise InputError(f"{name} cannot be swept: it {why}")
    if helps:
        print("jacobian-lab sweep --help: the options of the sweep itself. Those of the study:\n")
        parsed(command, f"sweep {name}", ["--help"])
    if rest:
        raise InputError(f"after sweep {name} come --options: got {' '.join(rest)}")
    mine = [group for group in groups if _field(group) in SweepOptions.__dataclass_fields__]
    options = parsed(
        SWEEP, "sweep", [word for option, values in mine for word in (option, *values)]
    )
    runs = runs_of(name, command, [group for group in groups if group not in mine])
    with threads(options.threads), cluster_of(options, runs) as cluster:
        carry_out(study_of(command), runs, cluster)
    report_runs(runs)


def runs_of(name: str, command: Command, groups: list[Group]) -> list[SweptRun]:
    """Return the runs that the options of a study ask for; they are checked before any begins."""
    found = combinations(name, study_of(command).config, groups)
    if len(found) > 1 and any(option == "--out" for option, _ in groups):
        raise InputError(
            f"--out is the folder of one run, and these are {len(found)}: leave it out, and each"
            " has its own, runs/STUDY-HASH"
        )
    options = [
        [" ".join((option, *values)) for option, values in grouped(words)[1]] for words in found
    ]
    common = set.intersection(*map(set, options))
    labels = [" ".join(option for option in mine if option not in common) for mine in options]
    runs = [
        SweptRun(parsed(command, f"sweep {name}", words), label)
        for words, label in zip(found, labels, strict=True)
    ]
    if any(getattr(run.config, "processes", 1) > 1 for run in runs):
        raise InputError("a sweep has --workers of its own: leave --processes out")
    return runs


@contextmanager
def cluster_of(options: SweepOptions, runs: list[SweptRun]) -> Iterator[Cluster]:
    """Yield the cluster that the options name, and print what it is."""
    with ExitStack() as stack:
        if options.scheduler:
            cluster = stack.enter_context(cluster_at(options.scheduler, options.threads))
        elif options.jobqueue:
            jobs = options.workers or 1
            cluster = stack.enter_context(cluster_of_jobs(options.jobqueue, jobs, options.threads))
        else:
            on_gpus = any(getattr(run.config, "device", "") == "cuda" for run in runs)
            devices = visible_gpus() if on_gpus else []
            workers = options.workers or len(devices) or max(1, cores() // options.threads)
            cluster = stack.enter_context(local_cluster(workers, options.threads, devices))
        print(cluster.about(), file=sys.stderr, flush=True)
        yield cluster


class Progress:
    """One bar over the pieces of all runs.

    A run that has not told its pieces yet is expected to have as many as the largest that has.
    """

    def __init__(self, runs: list[SweptRun]) -> None:
        self.runs = runs
        self.bar = tqdm(total=0, unit="piece", desc="sweep", smoothing=0)

    def refresh(self) -> None:
        """Show how far the runs are."""
        most = max(run.pieces for run in self.runs)
        ended = sum(run.has_ended for run in self.runs)
        self.bar.total = sum(run.pieces if run.has_ended else most for run in self.runs)
        self.bar.set_postfix_str(f"{ended} of {len(self.runs)} runs")

    @contextmanager
    def batch(self, run: SweptRun, total: int, initial: int, **_: Any) -> Iterator[Progress]:
        """Have a batch of a run's pieces, some of which are found on disk, counted."""
        run.pieces += total
        if not self.bar.disable:  # they say nothing of the time that others take
            self.bar.initial += initial
        self.bar.n += initial
        self.refresh()
        yield self

    def update(self) -> None:
        """Count a piece."""
        self.bar.update()


def carry_out(study: Study[Any], runs: list[SweptRun], cluster: Cluster) -> None:
    """Carry out runs, several at once; raise what is no fault of the user's."""
    progress, left = Progress(runs), iter(runs)

    def work() -> None:
        for run in left:  # each thread takes the next one
            _carry_out(study, run, cluster, progress)

    threads = [Thread(target=work, daemon=True) for _ in range(min(ON_THE_WAY, len(runs)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
            raise_ours(runs)
        raise_ours(runs)
    except KeyboardInterrupt as stop:
        stop.add_note("the same command goes on where this one stopped")
        raise
    finally:
        cluster.stopped.set()
        progress.bar.close()


def raise_ours(runs: list[SweptRun]) -> None:
    """Raise what a run failed by, if it is no fault of the user's."""
    for run in runs:
        if run.error is not None and not isinstance(run.error, InputError | OSError):
            raise run.error


def _carry_out(study: Study[Any], run: SweptRun, cluster: Cluster, progress: Progress) -> None:
    def prepare(pieces: Pieces) -> None:
        pieces.engine, pieces.progress = cluster, partial(progress.batch, run)

    if cluster.stopped.is_set():
        return
    try:
        run.outcome = perform(study, run.config, prepare=prepare)
    except BaseException as error:  # raised in the command's own thread, or reported
        run.error = error
    progress.refresh()


def report_runs(runs: list[SweptRun]) -> None:
    """Print what became of each run; raise if one failed."""
    for run in runs:
        said = f"{run.label}: " if run.label else ""
        if run.outcome is not None:
            print(f"{said}{run.outcome.folder}/, {run.outcome.how}; pieces: {run.pieces}")
        else:
            print(f"{said}failed: {run.error}")
    failed = [run for run in runs if run.error is not None]
    if len(runs) == 1 and runs[0].outcome:
        print(f"\n{runs[0].outcome.answer}")
    if failed:
        others = f" ({len(failed)} of {len(runs)} runs failed)" if len(runs) > 1 else ""
        raise InputError(f"{failed[0].error}{others}")


def _field(group: Group) -> str:
    return group[0].lstrip("-").replace("-", "_")
