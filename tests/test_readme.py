"""The README's code runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_examples_run(capsys):
    code = "\n".join(
        re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    )
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    before, after = map(float, re.findall(r"tensor\(([\d.]+)", printed))
    assert after < before  # a step along J e brings the denoised digit nearer to what is wished
    assert "converged to the operator's noise floor" in printed
    assert "FAIL" not in printed


def test_importing_the_library_needs_torch_numpy_and_scipy_only():
    # torch itself loads tqdm
    code = (
        "import sys, torch, scipy.sparse.linalg; before = set(sys.modules)\n"
        "import jacobian_lab; new = set(sys.modules) - before\n"
        "print({name.split('.')[0] for name in new} - {'jacobian_lab', 'torch'})"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )
