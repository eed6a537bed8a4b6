import pytest

from studies.archive.siblings import are_siblings, options_apart, options_that_vary, sweeps


class Run:
    def __init__(self, study, **options):
        self.study_name, self.said = study, {"seed": 0, "digit": 0, "time": 1} | options

    def options(self):
        return self.said


A, B, C, D = (
    Run("a"),
    Run("a", seed=1),
    Run("a", seed=1, digit=1),
    Run("a", seed=1, digit=1, time=2),
)
OTHER = Run("b", seed=1)


@pytest.mark.parametrize(
    ("one", "other", "apart"), [(A, B, ["seed"]), (A, C, ["seed", "digit"]), (B, C, ["digit"])]
)
def test_runs_with_one_or_two_options_apart_are_siblings(one, other, apart):
    assert options_apart(one, other) == options_apart(other, one) == apart
    assert are_siblings(one, other)


def test_equal_runs_those_far_apart_and_those_of_other_studies_are_none():
    assert not are_siblings(A, A)
    assert not are_siblings(A, D)
    assert not are_siblings(A, OTHER)


def test_a_sweep_holds_what_siblings_link_in_any_order():
    assert sweeps([A, OTHER, D, B]) == [[0, 2, 3]]  # A and D are linked by B
    assert sweeps([A, D, OTHER]) == []
    assert sweeps([A, OTHER, Run("b"), B]) == [[0, 3], [1, 2]]
    assert options_that_vary([A, B, D]) == ["seed", "digit", "time"]
    assert options_that_vary([A, B]) == ["seed"]


def test_an_option_that_other_code_did_not_know_counts():
    assert options_apart(A, Run("a", width=3)) == ["width"]
