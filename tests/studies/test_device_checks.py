"""Counts of waits and operations, and settings of TF32."""

import pytest
import torch

from studies.benchmarks.device_checks import flops, reads, tf32


@pytest.mark.parametrize(
    ("run", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to("cpu"), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: (x @ x).sin(), 0),
        (lambda x: torch.where(x > 0, x, 0), 0),
        (lambda x: [float(x[0, 0]), x.tolist()], 2),
    ],
)
def test_what_makes_the_host_wait_is_counted(run, waits):
    x = torch.ones(3, 3)
    assert reads(lambda: run(x)) == waits


def test_operations_are_those_of_matrix_products():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert flops(lambda: (a @ b).sin()) == 2 * 3 * 4 * 5


def test_tf32_is_set_inside_and_restored():
    before = torch.backends.cuda.matmul.allow_tf32

    def fails():
        with tf32(not before):
            assert torch.backends.cuda.matmul.allow_tf32 is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert torch.backends.cuda.matmul.allow_tf32 is before
