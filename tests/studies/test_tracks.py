"""Which method runs on which task of which track: it says so itself."""

import pytest
import torch

from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.errors import DivergenceError
from mnist.problems import problem
from studies.contest.ours import CONTESTANTS
from studies.contest.ours_in_latents import IN_LATENTS
from studies.contest.peers import Passes, Peer
from studies.contest.tracks import contestants, images_of, posed, refusal, track


def peer(run):
    return Peer("tried", "none", run, {}, {}, Passes(1), 1, "nobody")


def linear_only(denoiser: Denoiser, wanted: LinearConstraint, seeds, steps):
    return torch.zeros(len(seeds), *denoiser.shape)


def any_problem(denoiser: Denoiser, wanted: Constraint, seeds, steps):
    return torch.zeros(len(seeds), *denoiser.shape)


def not_told(denoiser, wanted, seeds, steps):
    raise DivergenceError("it grows", [])


def refuses(denoiser, wanted, seeds, steps):
    raise InputError("not here")


def test_a_method_is_left_out_by_the_type_of_its_problem_or_by_its_own_word():
    def said(run, task, model="mnist"):
        return refusal(peer(run), task, model, "cpu")

    assert said(linear_only, "half") == said(linear_only, "half, noise") == ""
    assert said(linear_only, "quantised") == (
        "tried needs linear observations y = A x of what the denoiser denoises: got Quantised"
    )
    assert said(linear_only, "saturated").endswith("got Measured")
    assert said(linear_only, "half", "mnist-latent").endswith("got Decoded")
    for task in ("half", "quantised", "saturated"):
        assert said(any_problem, task) == ""
    assert said(any_problem, "quantised", "mnist-latent") == ""
    assert said(not_told, "half") == ""  # it runs, if badly
    assert said(refuses, "half") == "not here"


@pytest.mark.parametrize("name", ["inexact Newton", "inexact Newton, paper", "DDIM", "DiffPIR"])
def test_flows_are_for_methods_that_need_no_table(name):
    found = next(peer for peer in CONTESTANTS if peer.name == name)
    said = refusal(found, "half", "mnist-flow", "cpu")
    assert (said == "") == (name != "DiffPIR")


def test_latents_have_methods_of_their_own_and_decode_to_images():
    assert contestants("mnist-latent")[: len(IN_LATENTS)] == IN_LATENTS
    assert not [peer for peer in IN_LATENTS if peer in contestants("mnist")]
    model = track("mnist-latent", "cpu")
    wanted = problem("half", 2000, 2, 0)[0]
    decoded = posed(wanted, model)
    assert isinstance(decoded, Decoded)
    assert decoded.constraint is wanted
    assert images_of(torch.zeros(2, 4, 8, 8, requires_grad=True), model).shape == (2, 1, 32, 32)
    assert not images_of(torch.zeros(2, 4, 8, 8, requires_grad=True), model).requires_grad
    assert posed(wanted, track("mnist", "cpu")) is wanted


def test_a_model_of_no_digits_is_refused(tmp_path):
    with pytest.raises(InputError):
        track(str(tmp_path / "nothing"), "cpu")
