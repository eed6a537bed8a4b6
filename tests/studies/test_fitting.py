"""Adam until each sample fits."""

import torch

from studies.contest.methods.fitting import moved_until_fit

from peer_checks import SHAPE, shrunk

X = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def same(x):
    return x


def test_a_sample_that_fits_stays_and_the_others_go_on():
    problem = shrunk(0.05)
    problem.y = problem.y.clone()
    problem.y[1] = problem.forward(X)[1] + 0.04
    found = moved_until_fit(X, same, problem, torch.optim.Adam, 0.05, 400)
    assert torch.equal(found[1], X[1])
    assert (problem.residual(found) <= 0.05).all()
    assert (problem.residual(found)[[0, 2]] > 0.03).all()  # and no further
    assert not found.requires_grad


def test_its_steps_are_the_optimisers_on_the_loss():
    problem, leaf = shrunk(), X.clone().requires_grad_()
    adam = torch.optim.AdamW([leaf], lr=0.1)
    for _ in range(5):
        adam.zero_grad()
        off = problem.y - problem.forward(leaf.square())
        (off.square().sum() + 0.3 * (leaf - X).square().sum()).backward()
        adam.step()
    found = moved_until_fit(X, torch.square, problem, torch.optim.AdamW, 0.1, 5, weight=0.3)
    assert torch.allclose(found, leaf)


def test_least_stands_for_noise_that_is_less():
    problem = shrunk()
    rough, fine = (
        problem.residual(
            moved_until_fit(X, same, problem, torch.optim.Adam, 0.05, 400, least=least)
        )
        for least in (0.1, 0.0)
    )
    assert (rough > 0.05).all()
    assert (rough <= 0.1).all()
    assert (fine < 0.01).all()
