import copy
import pickle

import pytest

from jacobian_lab import ConvergenceWarning, DerivativeWarning, DivergenceError, InputError


def test_everything_raised_on_purpose_is_an_input_error_and_a_value_error():
    assert issubclass(DivergenceError, InputError)
    assert issubclass(InputError, ValueError)
    assert issubclass(ConvergenceWarning, UserWarning)
    assert issubclass(DerivativeWarning, UserWarning)
    assert not issubclass(DerivativeWarning, ConvergenceWarning)


@pytest.mark.parametrize("hand_on", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_divergence_keeps_its_trace_when_it_is_handed_on(hand_on):
    found = hand_on(DivergenceError("too far", [(999, [0.5, 2.0])]))
    assert str(found) == "too far"
    assert found.trace == [(999, [0.5, 2.0])]
