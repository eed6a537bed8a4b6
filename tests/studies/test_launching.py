"""How a sweep comes by a cluster: which worker sees which GPU, and jobs of a queue."""

import sys
import types

import pytest

from jacobian_lab import InputError
from studies.frame import launching
from studies.frame.launching import cluster_of_jobs, cores, environments, visible_gpus

pytest.importorskip("distributed")


def test_there_are_cores():
    assert cores() >= 1


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    dealt = [e["CUDA_VISIBLE_DEVICES"] for e in environments(5, 1, ["0", "GPU-b"])]
    assert dealt == ["0", "GPU-b", "0", "GPU-b", "0"]
    assert not any("CUDA_VISIBLE_DEVICES" in e for e in environments(2, 1, []))
    assert [e["OMP_NUM_THREADS"] for e in environments(2, 3, [])] == ["3", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-c")
    assert visible_gpus() == ["2", "GPU-c"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert visible_gpus() == ["0", "1", "2"]


def test_a_queue_of_jobs_is_asked_for_workers_and_closed(monkeypatch):
    asked = []

    class SLURMCluster:
        scheduler_address = "tcp://127.0.0.1:1"

        def scale(self, jobs):
            asked.append(jobs)

        def close(self):
            asked.append("closed")

    class PBSCluster:
        def __init__(self):
            raise ValueError("You must specify how many cores")

    library = types.ModuleType("dask_jobqueue")
    library.SLURMCluster, library.PBSCluster = SLURMCluster, PBSCluster
    monkeypatch.setitem(sys.modules, "dask_jobqueue", library)
    monkeypatch.setattr(
        launching, "reach", lambda place: types.SimpleNamespace(close=lambda **_: 0)
    )
    with cluster_of_jobs("Slurm", 3) as made:
        assert asked == [3]
        assert made.threads == 1
    assert asked == [3, "closed"]
    for kind, message in (
        ("pbs", r"how many cores. dask-jobqueue reads ~/.config/dask/jobqueue.yaml"),
        ("cloud", "--jobqueue cloud is unknown: expected one of pbs, slurm"),
    ):
        with pytest.raises(InputError, match=message), cluster_of_jobs(kind, 1):
            pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(InputError, match="pip install dask-jobqueue"), cluster_of_jobs("slurm", 1):
        pass
