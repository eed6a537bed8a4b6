"""Where tensors lie in their storage, against indices written out."""

import pytest
import torch

from jacobian_lab.derivative.places import Flat, covers, is_one_to_one, overlap, place

from linear_maps import weights

BASE = torch.arange(24.0, dtype=torch.float64)
VIEWS = {
    "all": BASE,
    "evens": BASE[::2],
    "odds": BASE[1::2],
    "matrix": BASE.reshape(4, 6),
    "columns": BASE.reshape(4, 6)[:, 1:3],
    "transposed": BASE.reshape(4, 6).T,
    "windows": BASE.unfold(0, 5, 2),
    "expanded": BASE[:1].expand(7),
    "nothing": BASE[:0],
}


def entries(view):
    return {int(i) for i in view.reshape(-1)}  # the values are the indices


@pytest.mark.parametrize("p", VIEWS)
@pytest.mark.parametrize("q", VIEWS)
def test_overlaps_and_covers_are_those_of_the_indices(p, q):
    a, b = VIEWS[p], VIEWS[q]
    assert overlap(place(a), place(b)) == bool(entries(a) & entries(b))
    once = len(entries(a)) == a.numel()
    assert covers(place(a), place(b)) == (once and entries(b) <= entries(a))
    assert is_one_to_one(place(a)) == once


def test_tensors_of_another_type_may_overlap_anywhere():
    assert overlap(place(BASE[:4]), place(BASE.view(torch.int64)[8:]))


@pytest.mark.parametrize("name", VIEWS)
def test_adding_is_the_transpose_of_reading(name):
    p = place(VIEWS[name])
    flat = Flat(place(BASE))
    memory, u = weights(3, flat.size), weights(3, *p.shape, seed=1)
    read, added = flat.get(memory, p), torch.zeros_like(memory)
    flat.add(added, p, u)
    assert float((read * u).sum()) == pytest.approx(float((memory * added).sum()), abs=1e-12)


def test_conjugate_and_negative_views_are_signed():
    z = torch.complex(weights(4), weights(4, seed=1))
    for view in (z, z.conj(), z.conj().imag, z.imag):
        p, flat = place(view), Flat(place(z))
        memory = flat.zeros(z[None])
        flat.put(memory, place(z), z[None])
        assert torch.equal(flat.get(memory, p)[0].resolve_conj(), view.resolve_conj())
