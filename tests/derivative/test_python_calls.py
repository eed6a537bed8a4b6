"""What a recording sees of calls from Python."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jacobian_lab.derivative.hidden import Witness
from jacobian_lab.derivative.python_calls import PythonCalls
from jacobian_lab.derivative.storage import Memory

from linear_maps import weights


def seen(function, attention=lambda given, run: run()):
    """The witness of a run of the function at a tensor that depends on x."""
    memory = Memory(lambda *_: 0)
    witness, x = Witness(memory, ()), weights(2, 3)
    memory.write(x, 0)
    with PythonCalls(witness, attention):
        function(x)
    return witness


@pytest.mark.parametrize(
    ("leave", "way"),
    [
        (lambda x: x.numpy(), "numpy"),
        (lambda x: np.asarray(x), "__array__"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.data_ptr(), "data_ptr"),
        (lambda x: x.untyped_storage(), "untyped_storage"),
    ],
)
def test_tensors_that_leave_are_noted(leave, way):
    assert way in seen(leave).reads


def test_sums_do_not_leave():
    assert not seen(lambda x: x.sum() + torch.tensor(2.0)).reads


def test_only_while_a_tensor_is_made_of_numbers_is_it_literal():
    found = []
    witness = Witness(Memory(lambda *_: 0), ())

    class Numbers(list):
        def __len__(self):
            found.append(witness.literal)
            return super().__len__()

    with PythonCalls(witness, lambda given, run: run()):
        torch.tensor(Numbers([1.0, 2.0]))
        assert not witness.literal
        torch.as_tensor(np.ones(2))
        with pytest.raises(ValueError, match="expected sequence"):
            torch.tensor([[1.0], [1.0, 2.0]])
    assert found
    assert all(found)
    assert not witness.literal


def test_attention_is_handed_on_with_the_names_of_its_arguments():
    calls = []
    q = weights(1, 2, 4, 3)

    def attention(given, run):
        calls.append(given)
        return run()

    expected = F.scaled_dot_product_attention(q, q, q, None, 0.0, True, scale=0.5)
    with PythonCalls(Witness(Memory(lambda *_: 0), ()), attention):
        out = F.scaled_dot_product_attention(q, q, q, None, 0.0, True, scale=0.5)
    assert torch.equal(out, expected)
    assert calls[0]["is_causal"] is True
    assert calls[0]["scale"] == 0.5
    assert calls[0]["value"] is q
