"""The tape: tangents by number, and steps between them."""

import torch

from jacobian_lab.derivative.linear_map import Call, diagonal_map
from jacobian_lab.derivative.tape import Tape

from conftest import relative
from linear_maps import weights


def run(steps, tangent, output):
    tangents = {0: tangent}
    for step in steps:
        (tangents[step.outputs[0]],) = (step.linear.push(*(tangents[i] for i in step.inputs)),)
    return tangents[output]


def test_maps_of_one_operation_become_steps_with_tangents_between():
    tape = Tape()
    a, b = tape.slot(8, torch.float64), tape.slot(8, torch.float32)
    tape.append((a,), (b,), [diagonal_map(2.0), diagonal_map(3.0), diagonal_map(5.0)])
    steps, borrowed = tape.steps()
    assert [(step.inputs, step.outputs) for step in steps] == [
        ((0,), (2,)),
        ((2,), (3,)),
        ((3,), (1,)),
    ]
    assert (tape.sizes, tape.dtypes[2:]) == ([8] * 4, [torch.float32] * 2)
    assert not borrowed
    assert relative(run(steps, weights(1, 4), b), 30 * weights(1, 4)) < 1e-15


def test_operations_without_a_rule_borrow_a_derivative():
    tape, x = Tape(), weights(3, 4)
    a, b = (tape.slot(96, torch.float64) for _ in range(2))
    func = torch.ops.aten.cumprod.default
    tape.append((a,), (b,), Call(func, [x, 1, None], func(x, 1), (0,)))
    steps, borrowed = tape.steps()
    v = weights(2, 3, 4, seed=1)
    truth = torch.autograd.functional.jacobian(lambda x: x.cumprod(1), x).reshape(12, 12)
    assert borrowed == {"cumprod"}
    assert relative(run(steps, v, b).flatten(1), v.flatten(1) @ truth.T) < 1e-13
