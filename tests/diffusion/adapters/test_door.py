"""The one door: which family a source is of, and what the refusal says."""

import pytest
from torch import nn

from jacobian_lab import InputError, RectifiedFlow, load
from jacobian_lab.diffusion.adapters import door

import adapter_cases
from adapter_cases import cases
from adapter_cases_flows import SiT
from adapter_cases_libraries import (
    EDMPrecond,
    GaussianDiffusion,
    Net,
    UNetModel,
    VPPrecond,
    Wrapper,
)


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("model.safetensors", "file"),
        ("folder", "diffusers"),
        (EDMPrecond(), "edm"),
        (VPPrecond(), "edm"),
        (Wrapper(Net()), "k-diffusion"),
        (UNetModel(), "guided-diffusion"),
        (GaussianDiffusion("pred_v"), "denoising-diffusion"),
        (SiT(), "sit"),
        (Net(), None),
        (lambda x, t: x, None),
        (3, None),
        ((1, 2), None),
    ],
)
def test_a_source_is_recognised_by_what_it_is(source, family):
    assert next((of.name for of in door.FAMILIES if of.recognises(source)), None) == family


def test_torchcfms_copy_of_guided_diffusions_network_is_not_taken_for_it():
    copy = type("UNetModel", (UNetModel,), {"__module__": "torchcfm.models.unet"})()
    assert [of.name for of in door.FAMILIES if of.recognises(copy)] == ["torchcfm"]


def test_no_family_takes_anothers_models():
    for module in ("edm", "k_diffusion", "guided_diffusion", "denoising_diffusion", "sit"):
        cases(module)
    for source in (EDMPrecond(), Wrapper(Net()), UNetModel(), GaussianDiffusion("pred_v"), SiT()):
        assert sum(of.recognises(source) for of in door.FAMILIES) == 1


@pytest.mark.parametrize("source", [nn.Identity(), 3, None, lambda x, t: x, (1, 2)])
def test_the_refusal_lists_the_families_and_points_to_the_page(source):
    with pytest.raises(InputError, match="no adapter recognises") as refused:
        load(source)
    for family in door.FAMILIES:
        assert f"  {family.name}: " in str(refused.value)
    assert "bring-your-model.md" in str(refused.value)
    assert "Denoiser(network, schedule, prediction, shape)" in str(refused.value)


def test_a_family_or_an_option_that_is_unknown_is_told():
    with pytest.raises(InputError, match="unknown family 'ddpm': expected one of file, diffusers"):
        load(Net(), family="ddpm")
    with pytest.raises(InputError, match="'edm' takes no option 'sigma': expected label, shape"):
        load(EDMPrecond(), sigma=3)
    with pytest.raises(InputError, match="'flow-matching' needs the option shape"):
        load(Net(), family="flow-matching")


def test_a_network_of_ones_own_is_loaded_by_the_name_of_the_family():
    denoiser = load(Net(), family="flow-matching", shape=(3, 8, 8))
    assert isinstance(denoiser.schedule, RectifiedFlow)
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


@pytest.mark.slow
def test_the_table_of_all_families(capsys):
    """Family, D against its own formula in both precisions, path of products, audit, J v."""
    rows = []
    cases("edm")  # registers all
    for module, found in adapter_cases.CASES.items():
        for case in found:
            try:
                single, double = adapter_cases.check_value(case)
                path, off = adapter_cases.check_products(case)
            except pytest.skip.Exception as skipped:
                rows.append(f"{module:20} {case.name:55} {skipped}")
                continue
            twice = "float32 only" if double is None else f"{double:.0e}"
            rows.append(
                f"{module:20} {case.name:55} {single:8.0e} {twice:>12} {path:16} {'pass':6}"
                f" {off:8.0e}"
            )
    with capsys.disabled():
        head = ("adapter", "tiny random model", "float32", "float64", "path", "audit", "J v")
        print("\n{:20} {:55} {:>8} {:>12} {:16} {:6} {:>8}".format(*head))
        print("\n".join(rows))
    assert len(rows) > 40
