import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from jacobian_lab import InputError, _require

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_any_library_are_whole_numbers(value):
    found = _require.integer("k", value, 1, 5)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.0, "k must be a whole number: got 2.0"),
        (True, "k must be a whole number: got True (bool)"),
        (np.True_, "k must be a whole number: got "),
        (torch.tensor(True), "k must be a whole number: got a tensor of bool, shape ()"),
        ("3", "k must be a whole number: got '3'"),
        (torch.ones(2), "k must be a whole number: got a tensor of float32, shape (2,)"),
        (0, "k must lie from 1 to n = 5: got 0"),
        (6, "k must lie from 1 to n = 5: got 6"),
    ],
)
def test_what_is_no_whole_number_is_named(value, message):
    with pytest.raises(InputError) as raised:
        _require.integer("k", value, 1, 5, "n")
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("within", "inside", "outside"),
    [
        ("(0, 1]", (1e-300, 1.0), (0.0, 1.5, float("nan"))),
        ("[0, inf)", (0, 1e300), (-1e-300, float("inf"))),
        ("[0, inf]", (float("inf"),), (float("nan"),)),
        ("(-inf, inf)", (-1e300,), (float("-inf"), 10**400, 1j, "1")),
    ],
)
def test_intervals_are_read_as_they_are_written(within, inside, outside):
    for value in inside:
        assert _require.real("x", value, within) == value
    for value in outside:
        with pytest.raises(InputError, match=r"^x must "):
            _require.real("x", value, within)


def test_arrays_are_finite_and_real_and_keep_their_values():
    given = np.arange(3, dtype=np.int8)
    assert _require.array("b", given, (3,)).dtype == np.float64
    kept = np.ones(3)
    assert _require.array("b", kept) is kept
    for bad, message in [
        ([1, [2]], "must be an array of numbers"),
        (np.ones(3) * 1j, "is complex"),
        (np.ones(2), r"has shape \(2,\): expected \(3,\)"),
        (np.array([1, np.nan, np.inf]), "has 2 values of 3 that are not finite"),
        (np.array([True, False, True]), "must be an array of numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            _require.array("b", bad, (3,))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_numbers_that_are_not_finite_are_counted(make):
    _require.finite("x_t", make([0.0, 1.0]))
    with pytest.raises(InputError, match=r"x_t has 2 values of 3 that are not finite .*: cure"):
        _require.finite("x_t", make([0.0, float("nan"), float("inf")]), ": cure")


def test_a_library_that_is_missing_names_its_extra():
    assert _require.library("json", "sd", "latent models").dumps([]) == "[]"
    with pytest.raises(InputError, match=r"others need no_such, .*pip install \"jacobian-lab\[x\]"):
        _require.library("no_such", "x", "others")


def test_tensors_are_dense_floating_point_tensors_of_their_shape():
    x = torch.ones(1, 2)
    assert _require.tensor("x", x, (1, 2)) is x
    with pytest.raises(InputError, match=r"Write x / 127\.5 - 1 for pixels from 0 to 255"):
        _require.tensor("x", torch.ones(2, dtype=torch.uint8))
    for bad in (np.ones(2), x.to_sparse()):
        with pytest.raises(InputError, match="must be a floating-point tensor"):
            _require.tensor("x", bad)
    with pytest.raises(InputError, match=r"has shape \(1, 2\): expected \(2, 1\)"):
        _require.tensor("x", x, (2, 1))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.float32), "a numpy array of float32, shape (2, 3)"),
        (torch.zeros(2), "a tensor of float32, shape (2,)"),
        (torch.zeros(2, device="meta"), "a tensor of float32, shape (2,) without values (meta)"),
        (None, "None"),
        (print, "<built-in function print> (builtin_function_or_method)"),
    ],
)
def test_values_are_shown_in_one_short_line(value, text):
    assert _require.shown(value) == text
    assert len(_require.shown([list(range(10**4))] * 100)) <= 80


def test_devices_that_hold_no_values_are_refused():
    _require.device("cpu")
    for bad in ("meta", "cpu:1", "gpu", "cuda:99", None):
        with pytest.raises(InputError, match="cannot be used"):
            _require.device(bad)


def test_checks_of_numbers_need_no_torch():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(_require.__file__).read_text())
    names = [a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names]
    names += [str(n.module) for n in tree.body if isinstance(n, ast.ImportFrom)]
    assert not any(name.startswith("torch") for name in names)


def test_the_remedy_for_a_missing_library_exists():
    """Each extra that a message names is one of the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {
        extra
        for top in ("jacobian_lab", "mnist", "studies")
        for path in (ROOT / top).rglob("*.py")
        for extra in re.findall(r'library\("\w+", "(\w*)"', path.read_text())
        + re.findall(r"jacobian-lab\[(\w+)\]", path.read_text())
    }
    assert "sd" in named
    assert named - {""} <= set(project["optional-dependencies"])
    with pytest.raises(
        InputError, match=r"networks in X need nowhere_x, .*: pip install nowhere_x$"
    ):
        _require.library("nowhere_x", "", "networks in X")
