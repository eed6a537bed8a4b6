"""Bad command lines: each ends at once with exit status 2 and one line (a box for what is no
option), and leaves nothing.
"""

import shlex
import signal

import pytest

from conftest import call

STUDIES = (
    "directions",
    "eigenvalues",
    "spectrum",
    "eigenvectors",
    "symmetry",
    "accuracy",
    "evaluate",
    "convergence",
    "directions-budget",
    "posterior",
    "inpaint",
    "superres",
    "style",
    "guide",
    "guidance",
    "captions",
    "vae-newton",
    "audit",
    "benchmark products",
    "benchmark dense",
    "benchmark eigenpairs",
    "benchmark memory",
    "benchmark sampler",
    "benchmark contest",
    "train denoiser",
    "train classifier",
    "train limits",
    "train autoencoder",
    "train latent",
)
DEVICES = ("meta", "mps", "gpu", "cuda", "cuda:99", "''")
LINES = """
directions --time noon
directions --time nan
directions --time 2.5
directions --time 1000
directions --times
directions --times 300 300
directions --times inf
directions --change inf
directions --change nan
directions --change 0
directions --rconds nan
directions --rconds -0.1
directions --rconds 1
directions --pixel 1
directions --pixel 32 0
directions --pixel 1.5 2
directions --digit -1
directions --digit 2.5
directions --digit seven
directions --digits 5001
directions --target 5000
directions --seed -1
directions --seed 9223372036854775808
directions --seed 1.5
directions --model
directions --model ''
directions --model /nowhere/model
directions --model classifier
directions --unknown
directions now
eigenvalues --guidance nan
eigenvalues --guidance 4
eigenvalues --prompt seven
eigenvalues --times 0.5
eigenvalues --times -1
eigenvalues --seeds 0
eigenvalues --seeds 1e3
eigenvalues --digits 0
spectrum --arnoldi-steps 9
spectrum --arnoldi-steps 1025
spectrum --time inf
spectrum --time 1000
spectrum --model mnist-flow --time 500
eigenvectors --k 0
eigenvectors --k 21
eigenvectors --time 1000
eigenvectors --model nobody
symmetry --shown
symmetry --channel -1
symmetry --channel 1
symmetry --pixel -1 0
symmetry --times nan
accuracy --vectors 0
accuracy --pairs 0
accuracy --times 300.5
accuracy --vectors 1000000000000
evaluate --samples 63
evaluate --steps 0
evaluate --steps 1001
evaluate --digits 5001
evaluate --jacobians -1
evaluate --samples 1000000000000
convergence --newton-steps 0
convergence --points 0
convergence --spectral nan
convergence --spectral -1
convergence --change inf
convergence --steps 1001
convergence --jacobians 17
directions-budget --task whole
directions-budget --budgets 1
directions-budget --budgets 60 60
directions-budget --tolerance nan
directions-budget --tolerance inf
directions-budget --rconds 1
directions-budget --exact-times 0
posterior --samples 0
posterior --curves 0
posterior --steps 0
posterior --steps 1001
posterior --newton-steps -3
inpaint --change nan
inpaint --change inf
inpaint --eta nan
inpaint --eta 2
inpaint --samples 0
inpaint --samples 1000000000000
inpaint --steps 0
inpaint --direction newton
inpaint --rule none
inpaint --through pixels
inpaint --mask nowhere.png
inpaint --share nan
inpaint --digits 0
superres --factor 3
superres --factor 0
superres --change 0
superres --eta -0.1
style --digit 5000
style --change inf
style --features nobody
guide --classes 10
guide --classes -1
guide --classes 3 3
guide --classes
guide --classes seven
guide --change nan
inpaint --steps 1001
inpaint --side 0
inpaint --strokes -1
inpaint --share 2
inpaint --mask box --side 33
guidance --guidances nan
guidance --guidances 1 1
guidance --guidances
guidance --model mnist
captions --guidances inf
captions --samples 1
captions --steps 1001
captions --stock 51
vae-newton --change nan
vae-newton --batch 0
vae-newton --model mnist
vae-newton --steps 0
vae-newton --steps 1001
audit --times 1000
audit --times nan
audit --model unet
benchmark nothing
benchmark products --rounds 0
benchmark products --batches 0
benchmark products --time 1000
benchmark products --networks mine
benchmark products --jax
benchmark eigenpairs --blocks 0
benchmark eigenpairs --blocks 2 101
benchmark dense --rounds 2.5
benchmark dense --time -1
benchmark eigenpairs --k 0
benchmark eigenpairs --rtol nan
benchmark eigenpairs --dtype int32
benchmark eigenpairs --times 1000
benchmark memory --limit nan
benchmark memory --limit inf
benchmark memory --batches -1
benchmark sampler --batches 0
benchmark sampler --rounds 0
benchmark sampler --times 0
benchmark full-size --flops nan
benchmark growth --sides 48
benchmark growth --sides 64 32
benchmark growth --tokens 0
benchmark growth --products 3
benchmark full-size --flops -1
benchmark contest --methods mine
benchmark contest --budgets 0
benchmark contest --digits 1
benchmark contest --processes 0
train nothing
train denoiser --learning-rate nan
train denoiser --learning-rate inf
train denoiser --learning-rate -1
train denoiser --ema-decay nan
train denoiser --ema-decay 1
train denoiser --updates 0
train denoiser --updates 1.5
train denoiser --batch-size 0
train denoiser --warmup -1
train denoiser --precision float8
train denoiser --channels 1 2
train denoiser --channels 0 0 0
train denoiser --prediction noise
train classifier --width 0
train classifier --seed -1
train limits --channels 8 12 16
train autoencoder --perceptual nan
train autoencoder --divergence inf
train autoencoder --channels 1 1 1
train latent --dropped nan
train latent --dropped 1
nothing
--help-me
"""
COMMANDS = [
    *LINES.strip().splitlines(),
    *(f"{study} --device {device}" for study in STUDIES for device in DEVICES),
]


class HangsError(Exception):
    pass


@pytest.fixture(autouse=True)
def soon():
    """Interrupt what does not end at once: most take milliseconds, and reading what is asked for
    may take a second or two.
    """

    def hangs(*_):
        raise HangsError

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(15)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_bad_command_ends_with_status_2_and_one_line(monkeypatch, capsys, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(monkeypatch, capsys, *shlex.split(line))
    assert status == 2, out
    ours = [text for text in err.splitlines() if text.startswith("error: ")]
    # the parser's own, of what is no option or no value of its type
    boxed = "For full helptext" in err
    assert boxed or (len(ours) == 1 and len(err.splitlines()) == 1 and 20 < len(err) < 500)
    assert not list(tmp_path.rglob("*"))


def test_there_are_bad_commands_enough():
    assert len(COMMANDS) == len(set(COMMANDS)) > 120
