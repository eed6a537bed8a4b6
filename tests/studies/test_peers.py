"""The other methods: wired to our denoiser at the right noise levels, each sample by itself, at the
stated price.
"""

import importlib.util
import inspect
import random
import sys
import threading
import time

import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half, random_pixels
from jacobian_lab.constraints.separable import Separable, shrink, super_resolution
from jacobian_lab.diffusion.oracle import gaussian
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.sampler import sample, seeded_noise
from studies.contest import (
    peers_azula,
    peers_deepinv,
)
from studies.contest import (
    peers_simple as peers_ours,
)
from studies.contest.peers import PEERS, CountedDenoiser, Passes

from conftest import SHAPE

MISSING = {library: importlib.util.find_spec(library) is None for library in ("azula", "deepinv")}


def chosen(*left_out, libraries=("ours", "azula", "deepinv")):
    """Parameters for pytest: the peers of the libraries, skipped where one is missing; those that
    have a file of their own have a test of their own.
    """
    return [
        pytest.param(
            peer,
            id=peer.name,
            marks=pytest.mark.skipif(MISSING.get(library, False), reason=f"no {library}"),
        )
        for peer in PEERS
        if (library := peer.library.split()[0]) in libraries
        and peer.name not in left_out
        and peer.run.__module__.startswith("studies.contest.peers_")
    ]


def smooth():
    """The Gaussian of smooth images of 8x8."""
    at = torch.cartesian_prod(torch.arange(8), torch.arange(8)).double()
    covariance = 0.25 * torch.exp(-torch.cdist(at, at).square() / 8) + 1e-3 * torch.eye(64)
    return gaussian(torch.zeros(64).double(), covariance, DiscreteSchedule.linear(), (1, 8, 8))


@pytest.fixture(scope="module")
def denoiser():
    """The posterior mean of smooth images, as a network that predicts v."""
    return smooth().float().denoiser("v")


@pytest.fixture(scope="module")
def images():
    return smooth().sample(2, torch.Generator().manual_seed(0)).float()


class Recorder(torch.nn.Module):
    """A network that notes the times at which it is called."""

    def __init__(self, network):
        super().__init__()
        self.network, self.times = network, []
        self.eval()

    def forward(self, x, t):
        assert t.shape == (len(x),)
        self.times.append(sorted(set(t.tolist())))
        return self.network(x, t)


@pytest.mark.parametrize("peer", chosen())
def test_a_sample_does_not_depend_on_its_batch_nor_on_the_global_generator(denoiser, images, peer):
    problem = Inpainting(images, half(denoiser.shape), 0.1)
    state = torch.get_rng_state()
    # TMPD makes rounding 30 times larger at each step
    both = peer.run(denoiser, problem, [7, 8], 2, **peer.defaults)
    alone = peer.run(denoiser, problem.select(slice(1, 2)), [8], 2, **peer.defaults)
    assert torch.equal(torch.get_rng_state(), state)
    assert both.shape == images.shape
    assert both.dtype == images.dtype
    assert (both[1] - alone[0]).norm() < 5e-3 * alone.norm()
    assert (both[0] - alone[0]).norm() > 0.1 * alone.norm()


@pytest.mark.parametrize("peer", chosen())
def test_defaults_search_and_price_are_as_stated(denoiser, images, peer):
    given = list(inspect.signature(peer.run).parameters.values())[4:]
    assert {parameter.name: parameter.default for parameter in given} == dict(peer.defaults)
    assert all(peer.defaults[name] in values for name, values in peer.search.items())
    counted = CountedDenoiser(denoiser, len(images))
    peer.run(counted, Inpainting(images, half(denoiser.shape), 0.1), [0, 1], 3)
    guard = 1 / len(images) if peer.name == "DDIM" else 0  # our sampler's look at one sample alone
    assert counted.passes == Passes(
        3 * peer.passes.forward + guard, 3 * peer.passes.vjp, 3 * peer.passes.jvp
    )


# DiffPIR has times of its own, TDS a run for each sample
@pytest.mark.parametrize("peer", chosen("DiffPIR", "TDS"))
def test_the_network_is_called_at_the_times_of_our_sampler(denoiser, images, peer):
    recorder = Recorder(denoiser.network)
    peer.run(
        Denoiser(recorder, denoiser.schedule, "v", denoiser.shape),
        Inpainting(images, half(denoiser.shape)),
        [0, 1],
        7,
    )
    repeated = int(peer.passes.forward)
    guard = [[denoiser.schedule.times(7)[0]]] if peer.name == "DDIM" else []
    assert recorder.times == guard + [
        [t] for t in denoiser.schedule.times(7) for _ in range(repeated)
    ]


# TMPD's variances, negative for a trained network, may blow up; ALD needs more steps
@pytest.mark.parametrize(
    ("peer", "task"),
    [
        pytest.param(*peer.values, task, id=f"{peer.id}-{task}", marks=peer.marks)
        # RePaint: masks only
        for task, left_out in (
            ("half", ("DDIM", "TMPD", "ALD")),
            ("shrunk", ("DDIM", "TMPD", "ALD", "RePaint")),
        )
        for peer in chosen(*left_out)
    ],
)
def test_observations_are_met_roughly(denoiser, images, peer, task):
    problem = (
        super_resolution(shrink(images, 2), 2)
        if task == "shrunk"
        else Inpainting(
            images + 0.1 * seeded_noise([3, 4], denoiser.shape), half(denoiser.shape), 0.1
        )
    )
    strong = {"DPS": {"zeta": 3.0}, "MPGD": {"scale": 2.0}, "DPS, annealed": {"weight": 3.0}}
    found = peer.run(denoiser, problem, [0, 1], 9, **strong.get(peer.name, {}))
    free = peers_ours.unconstrained(denoiser, problem, [0, 1], 9)
    assert problem.residual(found).mean() < 0.6 * problem.residual(free).mean()
    assert (found - images).norm() < 0.8 * (free - images).norm()


def test_ddnm_meets_noiseless_observations_exactly_and_noisy_ones_to_their_noise(denoiser, images):
    masked = Inpainting(images, random_pixels(denoiser.shape, 0.3))
    assert masked.residual(peers_ours.ddnm(denoiser, masked, [0, 1], 3)).max() < 1e-6
    shrunk = super_resolution(shrink(images, 4), 4)
    assert shrunk.residual(peers_ours.ddnm(denoiser, shrunk, [0, 1], 3)).max() < 1e-5
    noisy = Inpainting(
        images + 0.2 * seeded_noise([3, 4], denoiser.shape), half(denoiser.shape), 0.2
    )
    residual = noisy.residual(peers_ours.ddnm(denoiser, noisy, [0, 1], 20))
    assert (residual > 0.1).all()
    assert (residual < 0.3).all()


def test_the_gain_of_a_mask_is_1_and_of_a_mean_over_f_times_f_pixels_f(images):
    assert torch.allclose(
        peers_ours._gain(Inpainting(images, half((1, 8, 8))), 2), torch.ones(2, 1, 1, 1)
    )
    mean = torch.eye(8).repeat_interleave(4, 1) / 4
    assert torch.allclose(
        peers_ours._gain(Separable(torch.zeros(2, 1, 8, 8), mean, mean), 2),
        torch.full((2, 1, 1, 1), 4.0),
    )


@pytest.mark.parametrize(
    ("name", "parameter", "weak", "strong"),
    [
        ("MPGD", "scale", 0.1, 1.0),
        ("DPS", "zeta", 0.3, 3.0),
        ("DPS, annealed", "weight", 0.1, 1.0),
        ("PiGDM", "weight", 0.1, 1.0),
        ("MMPS", "iterations", 1, 4),
    ],
)
def test_more_guidance_leaves_less_residual(denoiser, images, name, parameter, weak, strong):
    peer = next(peer for peer in PEERS if peer.name == name)
    if MISSING.get(peer.library.split()[0], False):
        pytest.skip(f"no {peer.library}")
    problem = super_resolution(shrink(images, 2), 2)
    low, high = (
        problem.residual(peer.run(denoiser, problem, [0, 1], 10, **{parameter: value})).mean()
        for value in (strong, weak)
    )
    assert low < 0.8 * high


@pytest.mark.skipif(MISSING["azula"], reason="no azula")
def test_azulas_noise_levels_are_those_of_the_table(denoiser):
    adapted = peers_azula.Adapted(denoiser)
    for k in range(1000):
        t = torch.tensor((k + 1) / 1000)
        assert adapted.time(t) == k
        assert adapted.schedule(t) == denoiser.schedule(k)
    assert adapted.time(torch.tensor(0.0)) is None
    assert [float(c) for c in adapted.schedule(torch.tensor(0.0))] == [1, 0]
    for steps in (1, 3, 50, 100, 1000):
        times = (
            peers_azula.azula()
            .sample.DDIMSampler(adapted, steps=steps, dtype=torch.float64)
            .timesteps
        )
        assert [adapted.time(t) for t in times[:-1]] == denoiser.schedule.times(steps)


@pytest.mark.skipif(MISSING["deepinv"], reason="no deepinv")
def test_deepinvs_denoiser_is_ours_in_both_ranges(denoiser, images):
    model = peers_deepinv._model(denoiser)
    for t in (0, 19, 500, 999):
        alpha_t, sigma_t = (float(c) for c in denoiser.schedule(t))
        x_t = denoiser.schedule.add_noise(images, t, seeded_noise([0, 1], denoiser.shape))
        expected = denoiser(x_t, t).clamp(-1, 1)
        native = model(x_t / alpha_t, sigma_t / alpha_t, input_in_minus_one_one=True)
        unit = model((x_t / alpha_t + 1) / 2, sigma_t / alpha_t / 2)
        assert (native - expected).abs().max() < 1e-3
        assert (2 * unit - 1 - expected).abs().max() < 1e-3


def test_counted_counts_passes_in_units_of_the_batch(denoiser, images):
    counted = CountedDenoiser(denoiser, 2)
    assert torch.equal(counted(images, 500), denoiser(images, 500))
    counted(images[:1], 500)
    assert counted.passes == Passes(1.5)
    x = images.clone().requires_grad_()
    D = counted(x, 500)
    torch.autograd.grad(D.sum(), x, retain_graph=True)
    torch.autograd.grad(D.square().sum(), x)
    assert counted.passes == Passes(2.5, 2)
    _, pull = torch.func.vjp(lambda z: counted(z, 500), images)
    pull(images)
    assert counted.passes == Passes(3.5, 3)


def test_counted_does_not_depend_on_what_other_threads_draw(denoiser, images):
    drawn, stop = [], threading.Event()

    def draw():
        while not stop.is_set():
            drawn.append(random.random())
            time.sleep(0)

    def passes():
        counted = CountedDenoiser(denoiser, 2)
        operator = BatchJacobian(counted, images, 500)
        operator.guard()
        operator.jvp(images)
        return counted.passes, operator.spent

    alone = passes()
    thread = threading.Thread(target=draw)
    thread.start()
    try:
        beside = [passes() for _ in range(3)]
    finally:
        stop.set()
        thread.join()
    assert drawn
    assert beside == [alone] * 3


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's own, at the first torch.func.jvp
def test_counted_counts_forward_mode(denoiser, images):
    counted = CountedDenoiser(denoiser, 2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.func.jvp(lambda z: counted(z, 500), (images,), (images,))
    assert counted.passes == Passes(1, 0, 1)


def test_what_a_peer_cannot_do_is_said(denoiser, images, monkeypatch):
    masks = torch.stack([half(denoiser.shape, known) for known in ("left", "right")])
    with pytest.raises(InputError, match="one operator for all samples"):
        peers_deepinv._decomposed(Inpainting(images, masks), denoiser.shape, 2, 0.0)
    with pytest.raises(InputError, match="masks only"):
        peers_azula.repaint(denoiser, super_resolution(shrink(images, 2), 2), [0, 1], 2)
    with pytest.raises(InputError, match="at least one sample"):
        CountedDenoiser(denoiser, 0)
    for library, load in (("azula", peers_azula.azula), ("deepinv", peers_deepinv.deepinv)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(InputError, match=r"jacobian-lab\[peers\]"):
            load()


def oracle_of(schedule, variance):
    """A Gaussian of independent numbers, and halves of two of its draws with noise of 0.2."""
    prior = gaussian(
        torch.linspace(-0.5, 0.5, 12, dtype=torch.float64),
        variance * torch.eye(12, dtype=torch.float64),
        schedule,
        SHAPE,
    )
    y = prior.sample(2, torch.Generator().manual_seed(0)).float()
    return prior, Inpainting(y, half(SHAPE), 0.2)


@pytest.mark.skipif(MISSING["azula"], reason="no azula")
def test_jfps_is_exact_where_the_prior_has_one_variance():
    """Its run is that of DDIM on the denoiser of the posterior."""
    prior, problem = oracle_of(DiscreteSchedule.linear(), 0.3)
    found = peers_azula.jfps(prior.float().denoiser(), problem, [3, 4], 20, 0.3, 1)
    known = torch.eye(12, dtype=torch.float64)[problem.mask[0].flatten()]
    for i in range(2):
        posterior = prior.double().conditioned(known, known @ problem.y[i].flatten().double(), 0.2)
        *_, last = sample(
            posterior.denoiser(),
            seeded_noise([3 + i], SHAPE).double(),
            DiscreteSchedule.linear().times(20),
        )
        assert torch.allclose(found[i : i + 1], last.x0.float(), atol=1e-4)


@pytest.mark.skipif(MISSING["azula"], reason="no azula")
def test_more_particles_bring_tds_nearer_to_the_posterior():
    prior, problem = oracle_of(DiscreteSchedule.linear(), 0.3)
    problem = problem.select(slice(0, 1))
    known = torch.eye(12, dtype=torch.float64)[problem.mask[0].flatten()]
    posterior = prior.conditioned(known, known @ problem.y[0].flatten().double(), 0.2)
    oracle, count = prior.float().denoiser(), 24
    problem.y = problem.y.expand(count, *SHAPE)
    drawn = peers_azula.tds(oracle, problem, range(count), 20, 8, 0.3).flatten(1).double()
    off = (drawn.mean(0) - posterior.means[0]).norm()
    assert off < 0.5 * (prior.means[0] - posterior.means[0]).norm()
    assert 0.6 < drawn.var(0).mean() / posterior.eigenvalues.mean() < 1.5


@pytest.mark.skipif(MISSING["deepinv"], reason="no deepinv")
def test_more_weight_brings_ald_nearer_to_the_observations():
    prior, problem = oracle_of(DiscreteSchedule.linear(), 0.3)
    strong, weak = (
        peers_deepinv.ald(prior.float().denoiser(), problem, [3, 4], 50, weight)
        for weight in (1.0, 0.1)
    )
    assert problem.residual(strong).mean() < 0.6 * problem.residual(weak).mean()


@pytest.mark.parametrize("peer", chosen("DiffPIR"))
def test_a_flow_is_taken_too(peer):
    """Of the same Gaussian, up to the times that are left out."""
    drawn = []
    for schedule in (DiscreteSchedule.linear(), RectifiedFlow()):
        prior, problem = oracle_of(schedule, 0.3)
        drawn.append(peer.run(prior.float().denoiser(), problem, [3, 4], 40, **peer.defaults))
    assert (drawn[0] - drawn[1]).isfinite().all()
    assert problem.residual(drawn[1]).mean() <= 1.5 * problem.residual(drawn[0]).mean()


@pytest.mark.skipif(MISSING["deepinv"], reason="no deepinv")
def test_diffpir_knows_ddpms_table_only():
    prior, problem = oracle_of(RectifiedFlow(), 0.3)
    with pytest.raises(InputError, match="DDPM's linear schedule only"):
        peers_deepinv.diffpir(prior.float().denoiser(), problem, [3, 4], 5)


class Bent(Constraint):
    """Observations y = tanh(x) + noise of 0.2."""

    sigma = 0.2

    def __init__(self, y):
        self.y = y

    def error(self, x0):
        return self.missing(x0)

    def missing(self, x0):
        return self.y.to(x0) - torch.tanh(x0)

    def residual(self, x0):
        return self.missing(x0).flatten(1).square().mean(1).sqrt()

    def select(self, index):
        return Bent(self.y[index])


@pytest.mark.skipif(MISSING["azula"], reason="no azula")
@pytest.mark.parametrize("name", ["DPS", "MMPS", "JFPS", "TDS"])
def test_azulas_methods_take_what_is_not_linear(name):
    peer = next(peer for peer in PEERS if peer.name == name)
    prior, _ = oracle_of(DiscreteSchedule.linear(), 0.3)
    denoiser = prior.float().denoiser()
    wanted = Bent(torch.tanh(prior.float().sample(2, torch.Generator().manual_seed(0))))
    found = peer.run(denoiser, wanted, [3, 4], 40, **peer.defaults)
    free = peers_ours.unconstrained(denoiser, wanted, [3, 4], 40)
    assert wanted.residual(found).mean() < 0.6 * wanted.residual(free).mean()


@pytest.mark.skipif(MISSING["azula"], reason="no azula")
def test_dps_takes_latents_and_the_others_say_that_they_do_not():
    prior, problem = oracle_of(DiscreteSchedule.linear(), 0.3)
    denoiser = prior.float().denoiser()
    latents = Decoded(problem, lambda x: x / 2, lambda z: 2 * z, "secant")
    found = peers_azula.dps(denoiser, latents, [3, 4], 60)
    free = peers_ours.unconstrained(denoiser, latents, [3, 4], 60)
    assert problem.residual(2 * found).mean() < 0.6 * problem.residual(2 * free).mean()
    for run in (peers_azula.mmps, peers_azula.jfps, peers_azula.tds):
        with pytest.raises(InputError, match="wired for images"):
            run(denoiser, latents, [3, 4], 3)
