"""The count of passes."""

from jacobian_lab.linops.spent import Spent


def test_all_passes_are_evaluations_and_what_was_spent_elsewhere_is_added():
    count = Spent(3, 1, 2)
    before = count.copy()
    count.add(Spent(0.5, 0, 1))
    assert count == Spent(3.5, 1, 3)
    assert count.evaluations == 7.5
    assert before == Spent(3, 1, 2)  # figures of then
