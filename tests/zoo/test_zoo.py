"""Networks of others and of our own, tiny: each gets the right J from every door, or a refusal that
says why.

pytest -m zoo              all of them, about 15 minutes on a core, with a summary at the end
pytest tests/zoo           every twentieth, as in CI
python -m zoo.check NAME   one, from the folder tests
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.check import Verdict, check, load
from zoo.registry import ZOO

load()
VERDICTS = {}
FAMILIES = sorted({entry.family for entry in ZOO.values()})
SLOW = {
    "autoencoder_kl_tiled",
    "motion_unet",
    "torchvision_mobilenet_v2",
    "torchvision_resnet18",
    "kandinsky3_unet",
    "sd_freeu",
    "autoencoder_temporal_decoder",
    "i2vgen_xl",
    "consistency_decoder",
    "timm_repvit",
    "timm_mobilevit",
    "stable_video_diffusion",
    "autoencoder_kl_sliced",
}
"""Seconds each: not in CI."""


def twentieth(family):
    """Return every twentieth quick network of a family, at least one."""
    names = [
        name
        for name in ZOO
        if ZOO[name].family == family and not ZOO[name].isolated and name not in SLOW
    ]
    return names[1 % len(names) :: 20]


CI = [name for family in FAMILIES for name in twentieth(family)]


def verdict(name):
    entry = ZOO[name]
    if entry.missing:
        pytest.skip(f"needs {entry.needs}, which is not installed")
    if not entry.isolated:
        return check(name)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "zoo.check", name],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        return Verdict(
            name,
            "traceback",
            faults=[f"the process died with status {done.returncode}: {done.stderr[-200:]}"],
        )
    return Verdict(**json.loads(done.stdout.splitlines()[-1]))


def holds(name):
    found = VERDICTS[name] = verdict(name)
    if found.verdict not in ("right", "refused", "told"):
        pytest.fail(
            f"{name} by {found.path}: {'; '.join(found.faults)}\n{found.reason}", pytrace=False
        )


@pytest.mark.filterwarnings("ignore")  # of packages; ours are caught and judged
@pytest.mark.parametrize("name", CI)
def test_a_twentieth_of_the_zoo(name):
    holds(name)


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name):
    holds(name)


def test_the_zoo_is_large_and_its_families_are_all_in_the_twentieth():
    assert len(ZOO) >= 150
    assert {ZOO[name].family for name in CI} == {entry.family for entry in ZOO.values()}
