"""Our sampler in latents: three ways from what is known of the image to the latent."""

import inspect

import pytest

import mnist
from jacobian_lab import InputError
from mnist.problems import problem
from studies.contest.ours_in_latents import IN_LATENTS, known_latents
from studies.contest.peers import CountedDenoiser
from studies.contest.tracks import images_of, posed, track


@pytest.mark.parametrize("peer", [pytest.param(peer, id=peer.name) for peer in IN_LATENTS])
def test_what_is_known_is_met_better_than_by_chance_at_the_stated_price(peer):
    model = track("mnist-latent", "cpu")
    wanted = problem("half", 2000, 2, 0)[0]
    counted = CountedDenoiser(model.denoiser, 2)
    found = images_of(peer.run(counted, posed(wanted, model), [0, 1], 5), model)
    assert wanted.residual(found).max() < 0.35 < wanted.residual(found.flip(0)).min()
    assert counted.passes.forward == pytest.approx(5 * peer.passes.forward, abs=1)
    given = list(inspect.signature(peer.run).parameters.values())[4:]
    assert {parameter.name: parameter.default for parameter in given} == dict(peer.defaults)
    assert all(peer.defaults[name] in values for name, values in peer.search.items())


def test_what_is_not_of_latents_or_no_mask_is_refused():
    denoiser, wanted = mnist.load_denoiser(), problem("half", 2000, 2, 0)[0]
    for peer in IN_LATENTS:
        with pytest.raises(InputError, match="for latents: got Inpainting"):
            peer.run(denoiser, wanted, [0, 1], 2)
    model = track("mnist-latent", "cpu")
    shrunk = posed(problem("super-resolution", 2000, 2, 0)[0], model)
    with pytest.raises(InputError, match="for masks only: got Separable"):
        known_latents(model.denoiser, shrunk, [0, 1], 2)
