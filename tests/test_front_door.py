"""The front door: what `jacobian_lab` exports, and how its results look at a prompt."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import jacobian_lab
from jacobian_lab import (
    Solution,
    asymmetry,
    diagonal,
    eigenpairs,
    lsmr,
    lstsq,
    singular_values,
    trace,
)

import networks


def test_it_shows_what_it_exports_and_nothing_else():
    assert dir(jacobian_lab) == sorted(jacobian_lab.__all__)
    assert all(hasattr(jacobian_lab, name) for name in jacobian_lab.__all__)
    needed = {
        "sample",
        "State",
        "Newton",
        "Inpainting",
        "masks",
        "seeded_noise",
        "Decoded",
        "load_latent",
    }
    assert needed <= {*dir(jacobian_lab)}


def test_everything_exported_says_what_it_is():
    undocumented = [
        name
        for name in jacobian_lab.__all__
        if not name.startswith("_") and not (getattr(jacobian_lab, name).__doc__ or "").strip()
    ]
    assert not undocumented


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (lambda A: eigenpairs(A, 3), ["eigenvalue", "4", "3", "2", "converged"]),
        (lambda A: singular_values(A, 2), ["singular value", "4", "3", "converged"]),
        (lambda A: eigenpairs(A, 40), ["eigenvalue", "more", "converged"]),
    ],
)
def test_spectra_print_a_table(result, lines):
    A = np.diag([4.0, 3.0, 2.0, *np.linspace(0, 1, 47)])
    shown = repr(result(A)).splitlines()
    assert max(map(len, shown)) < 100
    assert len(shown) <= 15
    for expected in lines:
        assert any(line.strip().startswith(expected) or expected in line for line in shown)


def test_a_value_shows_the_digits_that_its_error_leaves():
    A = np.diag([np.pi, 1.0, 0.5]) + 1e-4 * np.random.default_rng(0).standard_normal((3, 3))
    assert "3.14" in repr(eigenpairs(A, 1))
    assert "1+1j" in repr(eigenpairs(np.array([[1.0, -1.0], [1.0, 1.0]]), 2))


@pytest.mark.parametrize("scale", [1e300, 1.0, 1e-300, 0.0])
def test_spectra_of_any_scale_print(scale):
    A = scale * np.diag([3.0, 2.0, 1.0, 0.0])
    assert f"{3 * scale:g}" in repr(singular_values(A, 4)).splitlines()[1]
    assert f"{2 * scale:g}" in repr(eigenpairs(A, 2)).splitlines()[2]


def test_numbers_and_solutions_print_a_line():
    A = np.diag([4.0, 3.0, 2.0, 1.0])
    assert float(trace(A)) == pytest.approx(10)
    for result in (trace(A), asymmetry(A), diagonal(A), lsmr(A, np.ones(4)), lstsq(A, np.ones(4))):
        assert repr(result).startswith(("Estimate: ", "Solution: "))
        assert "\n" not in repr(result)
        assert len(repr(result)) < 120
    assert isinstance(lstsq(A, np.ones(4)), Solution)


def everything(denoiser, images):
    """What a user computes in an afternoon."""
    noise = jacobian_lab.seeded_noise([1, 2], denoiser.shape)
    x_t = denoiser.schedule.add_noise(images, 500, noise)
    J = jacobian_lab.JacobianOperator(denoiser, x_t[0], 500)
    V = np.random.default_rng(0).standard_normal((J.shape[0], 20)).astype(np.float32)
    batch = jacobian_lab.BatchJacobian(denoiser, x_t, 500, "exact")
    A = jacobian_lab.operator_of(lambda x: denoiser(x, 300), x_t[:1])
    known = jacobian_lab.masks.half(denoiser.shape)
    times = denoiser.schedule.times(4)
    newton = jacobian_lab.Newton("inexact", 1, jacobian_lab.Dynamic(0.2))
    constraint = jacobian_lab.Inpainting(images, known)
    *_, last = jacobian_lab.sample(denoiser, noise, times, constraint, newton, seeds=[1, 2])
    found = [J @ V, J.T @ V, J.T @ V[:, 0], A @ V[:, 0], A.T @ V[:, 0], J.dense()]
    masks = [
        jacobian_lab.masks.free_form(denoiser.shape),
        jacobian_lab.masks.random_pixels(denoiser.shape, 0.2),
    ]
    tensors = [x_t, batch.d, batch.jvp(noise), batch.vjp(noise), last.x0, *masks]
    verdict = [bool(jacobian_lab.audit(J)), jacobian_lab.trace(J).value]
    return [*found, *(tensor.numpy() for tensor in tensors), np.array(verdict)]


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: torch.device("meta"),  # stands for a GPU: what is made on it has no values
        lambda: default_dtype(torch.float64),
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16, enabled=False),
    ],
)
def test_numbers_do_not_depend_on_the_defaults_of_whoever_asks(setting):
    denoiser = networks.denoiser(dtype=torch.float32)
    images = torch.rand(2, *denoiser.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = everything(denoiser, images)
    with setting():
        found = everything(denoiser, images)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
