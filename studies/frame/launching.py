"""How a sweep comes by a cluster: processes of this machine, a scheduler that runs somewhere, or
jobs of a queue.
"""

from __future__ import annotations

import logging
import os
from asyncio import gather
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle, islice
from typing import Any

from jacobian_lab import InputError
from studies.frame.cluster import PATIENCE, Cluster, distributed, reach


@contextmanager
def local_cluster(
    workers: int,
    threads: int = 1,
    devices: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Yield a cluster of processes of this machine, which end with the block, or with this process.

    Parameters
    ----------
    workers : int
    threads : int
        Threads that compute a piece.
    devices : sequence of str
        GPUs, as CUDA_VISIBLE_DEVICES names them: each worker sees one.
    """
    library = distributed()
    # dask would set variables of this process too; and its MALLOC_TRIM_THRESHOLD_ has every large
    # array mapped and cleared anew, a third of the time of a network on the CPU
    import_module("dask.config").set({"distributed.nanny.pre-spawn-environ": {}})
    has_dashboard = find_spec("bokeh") is not None
    options = {
        "nthreads": 1,
        "host": "127.0.0.1",
        "memory_limit": 0,  # the network's memory is no reason to pause
        "preload": ["studies.frame.errands"],
        "dashboard": False,
        "silence_logs": logging.CRITICAL,
    }
    spec = library.SpecCluster(
        workers={
            i: {"cls": library.Nanny, "options": options | {"env": environment}}
            for i, environment in enumerate(environments(workers, threads, devices))
        },
        scheduler={
            "cls": library.Scheduler,
            "options": {
                "host": "127.0.0.1",
                "dashboard": has_dashboard,
                "dashboard_address": "127.0.0.1:0",
                "allowed_failures": 0,
            },
        },
        silence_logs=logging.CRITICAL,
    )
    try:
        with cluster_at(spec.scheduler_address, threads) as cluster:
            yield cluster
    finally:
        _end(spec)


@contextmanager
def cluster_at(place: str, threads: int = 1, patience: float = PATIENCE) -> Iterator[Cluster]:
    """Yield the cluster of a scheduler, by its address or scheduler file; it is left as it is."""
    cluster = Cluster(partial(reach, place), threads, patience)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def cluster_of_jobs(kind: str, jobs: int, threads: int = 1) -> Iterator[Cluster]:
    """Yield a cluster whose workers are jobs of a queue, by dask-jobqueue and its own configuration
    files; the jobs end with the block.

    Raises
    ------
    InputError
        If dask-jobqueue is not installed, knows no such queue, or lacks a setting.
    """
    try:
        library = import_module("dask_jobqueue")
    except ImportError as error:
        raise InputError(
            f"--jobqueue {kind} needs dask-jobqueue, which is not installed ({error}): pip install"
            " dask-jobqueue"
        ) from error
    kinds = {
        name.removesuffix("Cluster").lower(): made
        for name, made in vars(library).items()
        if name.endswith("Cluster") and name not in ("Cluster", "LocalCluster", "JobQueueCluster")
    }
    if kind.lower() not in kinds:
        raise InputError(
            f"--jobqueue {kind} is unknown: expected one of {', '.join(sorted(kinds))}"
        )
    try:
        queue = kinds[kind.lower()]()
    except (ValueError, TypeError, OSError) as error:
        raise InputError(
            f"--jobqueue {kind}: {error}. dask-jobqueue reads ~/.config/dask/jobqueue.yaml"
        ) from error
    try:
        queue.scale(jobs=jobs)
        with cluster_at(queue.scheduler_address, threads) as cluster:
            yield cluster
    finally:
        queue.close()


def _end(spec: Any) -> None:
    """End a local cluster at once, whatever its workers compute."""

    async def end() -> None:
        # the nannies kill what does not end in this time; on a busy machine that takes its own
        closing = (nanny.close(timeout=1) for nanny in spec.workers.values())
        await gather(*closing, return_exceptions=True)

    spec.sync(end)
    spec.close()


def environments(workers: int, threads: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """Return the environment of each worker; GPUs are dealt out in turn."""
    common = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    common["TQDM_DISABLE"] = "1"  # the command has the progress bar
    dealt = islice(cycle([{"CUDA_VISIBLE_DEVICES": device} for device in devices] or [{}]), workers)
    return [common | mine for mine in dealt]


def cores() -> int:
    """Return how many cores this process may use."""
    distributed()
    return int(import_module("dask.system").CPU_COUNT)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
