"""What makes a run this one, and what repeats it; the rest is in test_runs and test_study."""

import json

from studies.frame.provenance import claim_of, manifest
from studies.jacobian.eigenvalues import STUDY, Eigenvalues


def test_the_folder_is_no_part_of_the_claim_and_the_options_are(tmp_path):
    claim = claim_of(STUDY, Eigenvalues(digits=2))
    assert claim == claim_of(STUDY, Eigenvalues(digits=2, out=tmp_path))
    assert claim != claim_of(STUDY, Eigenvalues(digits=3))
    assert claim["study"] == "eigenvalues"
    assert claim["code"].keys() >= {"sources", "torch", "numpy", "scipy"}
    assert json.loads(json.dumps(claim)) == claim


def test_the_manifest_names_command_versions_and_weights(monkeypatch):
    monkeypatch.setattr("sys.argv", ["jacobian-lab", "eigenvalues", "--digits", "2"])
    config = Eigenvalues(digits=2, seed=4)
    claim = claim_of(STUDY, config)
    found = manifest(STUDY, config, claim, 0.0, 3)
    assert found["command"] == "jacobian-lab eigenvalues --digits 2"
    assert (found["seed"], found["pieces_from_an_interrupted_run"]) == (4, 3)
    assert found["weights"] == claim["weights"]
    assert found["versions"].keys() >= {"python", "torch", "matplotlib"}
