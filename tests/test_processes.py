"""Processes and threads: what pickles, what a pool hands on, whose settings come back, and what a
dead operator leaves.
"""

import gc
import multiprocessing
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import jacobian_lab
from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    arnoldi,
    audit,
    eigenpairs,
    errors,
    guided,
    posterior_covariance,
    restriction,
    singular_values,
    skew_part,
    symmetric_part,
    trace,
)
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.derivative.guards import modules_called
from jacobian_lab.derivative.settings import MATH_ATTENTION, differentiable
from jacobian_lab.errors import DivergenceError
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Fixed

from conftest import make_gaussian, make_mixture, relative
from networks import SHAPE, denoiser

MASK = torch.zeros(SHAPE, dtype=torch.bool)
MASK[:, :4] = True


def x_at(seed=0, count=1):
    return seeded_noise(range(seed, seed + count), SHAPE, dtype=torch.float64)


def diverge(seed):
    """Sample with a step far too large: in a worker of a pool."""
    states = sample(
        denoiser(),
        x_at(seed),
        [900, 500, 100],
        Inpainting(x_at(9), MASK),
        Newton(steps=2, step_size=Fixed(1e12)),
    )
    return [float(state.x0.norm()) for state in states]


def dense_of(J):
    return J.dense()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_sampler_that_diverges_in_a_pool_says_so_with_its_trace(method):
    # one thread: a forked process has none of its parent's, for which PyTorch's OpenMP would wait
    workers = multiprocessing.get_context(method).Pool(1, torch.set_num_threads, (1,))
    with workers as pool, warnings.catch_warnings():
        # a fork beside threads, of Python 3.12 on
        warnings.simplefilter("ignore", DeprecationWarning)
        result = pool.apply_async(diverge, (3,))
        with pytest.raises(DivergenceError, match="diverged at t = ") as raised:
            result.get(timeout=60)
    with pytest.raises(DivergenceError) as own:
        diverge(3)
    here = own.value
    assert str(raised.value) == str(here)
    assert len(here.trace) > 1
    for (t, residuals), (t_here, residuals_here) in zip(
        raised.value.trace, here.trace, strict=True
    ):
        assert t == t_here
        assert residuals == pytest.approx(residuals_here, rel=1e-6)


def classes():
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]


@pytest.mark.parametrize("kind", classes())
def test_every_exception_and_warning_of_ours_pickles_with_its_fields(kind):
    fault = kind("why", [(500.0, [1.5]), (100.0, [])]) if kind is DivergenceError else kind("why")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(fault, protocol))
        assert type(again) is kind
        assert str(again) == "why"
        assert vars(again) == vars(fault)


def test_errors_that_are_said_elsewhere_pickle_too():
    from jacobian_lab.derivative.linear_map import UnsupportedError

    for kind in (
        UnsupportedError,
        jacobian_lab.InputError,
        jacobian_lab.ConvergenceWarning,
        jacobian_lab.DerivativeWarning,
    ):
        assert str(pickle.loads(pickle.dumps(kind("why")))) == "why"


@pytest.mark.parametrize(
    "make",
    [
        denoiser,
        lambda: denoiser("flow", flow=True),
        lambda: make_gaussian(DiscreteSchedule.linear()).denoiser(),
        lambda: make_mixture(DiscreteSchedule.cosine()).denoiser("v"),
    ],
)
def test_denoisers_pickle(make):
    D = make()
    again = pickle.loads(pickle.dumps(D))
    x, t = torch.randn(2, *D.shape, dtype=torch.float64), 0.5 if "Flow" in repr(D.schedule) else 500
    assert torch.equal(again(x, t), D(x, t))
    assert not again.training


@pytest.mark.parametrize("products", ["exact", "forward", "central"])
def test_an_operator_pickles_as_what_it_is_made_of_and_is_checked_anew(products):
    J = JacobianOperator(denoiser(), x_at(), 500, products, None if products == "exact" else 1e-5)
    J.T @ np.ones(64)
    again = pickle.loads(pickle.dumps(J))
    assert (again.path, again.shape, again.alpha_t, again.products.step) == (
        J.path,
        J.shape,
        J.alpha_t,
        J.products.step,
    )
    assert np.array_equal(again @ np.eye(64), J @ np.eye(64))
    assert np.array_equal(again.T @ np.ones(64), J.T @ np.ones(64))


PARTS = {
    "transpose": lambda J: J.T,
    "transpose, twice": lambda J: J.T.T,
    "symmetric": symmetric_part,
    "skew": lambda J: skew_part(J).T,
    "restriction": lambda J: restriction(J, np.arange(64) < 20, np.arange(64) > 5),
    "covariance": posterior_covariance,
    "sum": lambda J: 2 * J + J.T,
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_an_operator_pickle_as_what_they_are_made_of(part):
    A = PARTS[part](JacobianOperator(denoiser(), x_at(), 500))
    again = pickle.loads(pickle.dumps(A))
    assert again.shape == A.shape
    assert np.array_equal(again @ np.eye(A.shape[1]), A @ np.eye(A.shape[1]))


def test_an_operator_of_functions_says_why_it_does_not_pickle():
    A = Operator((2, 2), float, lambda V: V, lambda V: V)
    with pytest.raises(pickle.PicklingError, match="pickle what it is made of"):
        pickle.dumps(A)


def test_an_operator_travels_to_a_spawned_process():
    J = JacobianOperator(denoiser(), x_at(), 500)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert relative(pool.apply_async(dense_of, (J,)).get(timeout=60), J.dense()) < 1e-12


def test_a_batch_pickles():
    J = BatchJacobian(denoiser(), x_at(count=2), 500, "exact")
    J.jvp(J.x), J.vjp(J.x)
    again = pickle.loads(pickle.dumps(J))
    assert again.spent == J.spent
    assert torch.equal(again.jvp(J.x), J.jvp(J.x))


def test_what_does_not_pickle_is_named():
    D = Denoiser(lambda x, t: torch.tanh(x), DiscreteSchedule.linear(), "v", SHAPE)
    for what in (D, JacobianOperator(D, x_at(), 500), guided(D.network, D.network, 4.0)):
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            pickle.dumps(what)


def test_results_pickle():
    found = eigenpairs(np.diag([3.0, 2.0, 1.0]), 1)
    assert pickle.loads(pickle.dumps(found)).message == found.message
    assert pickle.loads(pickle.dumps(trace(np.eye(3)))).value == 3
    values = singular_values(np.diag([3.0, 2.0, 1.0]), 1)
    assert str(pickle.loads(pickle.dumps(values))) == str(values)


def test_a_report_of_an_audit_pickles_with_its_verdict():
    report = audit(JacobianOperator(denoiser(), x_at(), 500))
    again = pickle.loads(pickle.dumps(report))
    assert str(again) == str(report)
    assert bool(again) is bool(report)


def flags():
    cuda = torch.backends.cuda
    return (
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(),
    )


def in_threads(*functions):
    """Run functions at once; raise what one of them raises."""
    faults = []

    def guarded(function):
        try:
            function()
        except BaseException as fault:  # shown below, in the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


@pytest.mark.parametrize("first_leaves", ["first", "last"])
def test_flags_of_attention_come_back_when_threads_overlap(first_leaves):
    before, seen = flags(), []
    for _ in range(100):
        one_in, both_in, one_out = threading.Event(), threading.Event(), threading.Event()
        waits = both_in if first_leaves == "first" else one_out

        def first(one_in=one_in, waits=waits, one_out=one_out):
            with MATH_ATTENTION:
                one_in.set()
                assert waits.wait(10)
                seen.append(flags())
            one_out.set()

        def second(one_in=one_in, both_in=both_in, one_out=one_out):
            assert one_in.wait(10)
            with MATH_ATTENTION:
                both_in.set()
                assert first_leaves == "last" or one_out.wait(10)
                seen.append(flags())
            one_out.set()

        in_threads(first, second)
        assert flags() == before
    assert set(seen) == {(False, False, True, False)}  # never lost while a thread is inside


def test_two_threads_with_an_operator_each_give_what_each_gives_alone():
    before = flags()
    # made here: they draw their weights from the one generator of the process
    made = [denoiser(seed=seed) for seed in range(2)]
    wanted = [JacobianOperator(made[seed], x_at(seed), 500).dense() for seed in range(2)]

    def work(seed):
        for _ in range(10):
            J = JacobianOperator(made[seed], x_at(seed), 500)
            assert relative(J.dense(), wanted[seed]) < 1e-12
            assert relative(J @ np.eye(64), wanted[seed]) < 1e-12

    in_threads(lambda: work(0), lambda: work(1))
    assert flags() == before


def test_settings_come_back_where_one_of_them_cannot_be_set(monkeypatch):
    import torch._dynamo  # what sets the stance; then there are two settings

    def fails(stance):
        raise RuntimeError("no stance here")

    before = flags()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "set_stance", fails)
        with pytest.raises(RuntimeError, match="no stance"):
            differentiable().__enter__()
    assert flags() == before
    with differentiable(), MATH_ATTENTION:
        assert flags() == (False, False, True, False)
    assert flags() == before


def test_settings_come_back_after_an_error_in_a_thread():
    before = flags()

    def fails():
        with differentiable():
            raise KeyError("inside")

    with pytest.raises(KeyError):
        in_threads(fails, fails, fails)
    assert flags() == before


def test_a_network_that_trains_in_another_thread_is_none_of_ours():
    other, stop = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1)).train(), threading.Event()
    mine = nn.Identity()

    def trains():
        while not stop.is_set():
            other(x_at(count=2).float())

    def looks():
        try:
            for _ in range(50):
                with modules_called() as called:
                    mine(x_at())
                assert called == [mine]
        finally:
            stop.set()

    in_threads(trains, looks)


def recorded(products="exact"):
    J = JacobianOperator(denoiser(), x_at(), 500, products)
    J @ np.ones(64)
    J.T @ np.ones(64)
    return J


def batch(graph, products):
    J = BatchJacobian(denoiser(), x_at(count=2), 500, products, graph)
    J.jvp(J.x), J.vjp(J.x)
    return J


def half_way(direction):
    states = sample(
        denoiser(),
        x_at(count=2),
        [900, 500, 100],
        Inpainting(x_at(9), MASK),
        Newton(direction, steps=2),
    )
    for _ in range(4):
        next(states)
    return states


def unrecorded():
    """An operator of a network that reads a number out: its recording is made, and rejected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        J = JacobianOperator(
            Denoiser(
                lambda x, t: torch.tanh(x) * x.norm().item(), DiscreteSchedule.linear(), "v", SHAPE
            ),
            x_at(),
            500,
        )
        J @ np.ones(64)
        return J


MADE = {
    "exact": recorded,
    "forward": lambda: recorded("forward"),
    "central": lambda: recorded("central"),
    "J.T": lambda: recorded().T,
    "symmetric part": lambda: symmetric_part(recorded()),
    "unrecorded": unrecorded,
    "arnoldi": lambda: arnoldi(recorded(), 5),
    "batch": lambda: batch(False, "forward"),
    "batch, exact": lambda: batch(False, "exact"),
    "batch, graph": lambda: batch(True, "forward"),
    "sampler": lambda: half_way("inexact"),
    "sampler, gradient": lambda: half_way("gradient"),
    "sampler, krylov": lambda: half_way("krylov"),
}


def alive():
    """Return how many objects of ours there are, of the kinds that hold a run of a network."""
    kinds = {
        "JacobianOperator",
        "Products",
        "Ladder",
        "Linearisation",
        "Recorder",
        "Memory",
        "Storage",
        "Step",
        "Linear",
        "Call",
        "DoubleBackward",
        "Differences",
        "BatchJacobian",
        "Arnoldi",
        "Denoiser",
    }
    return sum(
        type(thing).__module__.startswith("jacobian_lab") and type(thing).__name__ in kinds
        for thing in gc.get_objects()
        if isinstance(type(thing).__module__, str)
    )


@pytest.fixture
def no_collection():
    recorded()  # PyTorch imports what it needs at first: its frames are garbage, once
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_is_dropped_is_gone_at_once_without_the_collector(no_collection, make):
    before = alive()
    made = make()
    assert alive() > before
    gone = weakref.ref(made)
    del made
    assert gone() is None
    assert alive() == before


def test_what_was_refused_leaves_nothing_behind(no_collection):
    before = alive()
    D = denoiser()
    for _ in range(3):
        D.train()
        with pytest.raises(InputError, match="training mode"):
            JacobianOperator(D, x_at(), 500)
        D.eval()
        assert audit(JacobianOperator(D, x_at(), 500))
    del D
    assert alive() == before


def test_300_operators_in_a_row_do_not_pile_up(no_collection):
    D = denoiser()
    references, most, before = [], 0, alive()
    for seed in range(300):
        J = JacobianOperator(D, x_at(seed), 500)
        references.append(weakref.ref(J.products.ladder))
        most = max(most, sum(r() is not None for r in references))
    del J
    assert most <= 2  # the next one is made before the last one's name is given to it
    assert alive() == before
