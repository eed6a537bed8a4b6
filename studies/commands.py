"""The commands of `jacobian-lab`: where each is, and what it does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from studies.frame.study import Study


class Command(NamedTuple):
    """Where a command is, and what it does."""

    module: str
    does: str
    options: str = ""
    """The class of its options; by default those of its study."""
    function: str = ""
    """What takes them and prints; it returns whether all is well, or None."""
    study: str = "STUDY"
    """In place of a function: the study that is run."""
    reads_words: bool = False
    """Whether the function takes the words after the name, in place of options."""


def study_of(command: Command) -> Study[Any]:
    """Return the study that a command runs."""
    study: Study[Any] = getattr(import_module(command.module), command.study)
    return study


def options_of(command: Command) -> type[Any]:
    """Return the class of a command's options."""
    if not command.options:
        return study_of(command).config
    kind: type[Any] = getattr(import_module(command.module), command.options)
    return kind


COMMANDS: dict[str, dict[str, Command]] = {
    "The Jacobian of a denoiser": {
        "audit": Command(
            "studies.jacobian.audits", "Check J before any analysis.", "Audit", "report"
        ),
        "health": Command(
            "studies.jacobian.health", "Check a model before any study.", "CheckHealth", "examine"
        ),
        "directions": Command(
            "studies.jacobian.directions", "Compare J e, J^+ e and J^T e at a noisy digit."
        ),
        "eigenvalues": Command(
            "studies.jacobian.eigenvalues",
            "Measure the largest |eigenvalue| of J and of its parts.",
        ),
        "spectrum": Command(
            "studies.jacobian.spectrum", "Draw the spectrum of J at one noisy digit."
        ),
        "eigenvectors": Command(
            "studies.jacobian.eigenvectors", "Draw the principal components of the posterior."
        ),
        "symmetry": Command(
            "studies.jacobian.symmetry", "Measure how far J is from symmetric, and where."
        ),
        "guidance": Command("studies.jacobian.guidance", "Measure what guidance does to J."),
        "accuracy": Command("studies.jacobian.accuracy", "Measure the rounding of the products."),
        "evaluate": Command(
            "studies.jacobian.evaluate", "Score a denoiser on held-out digits, or on your images."
        ),
    },
    "Published claims": {
        "editing": Command(
            "studies.claims.editing", "Edit a region of a digit along one direction."
        ),
        "moments": Command(
            "studies.claims.moments",
            "Measure the posterior along its first component beyond two moments.",
        ),
        "locality": Command(
            "studies.claims.locality",
            "Compare rows and columns of J with the Wiener filter of the data.",
        ),
        "shrinkage": Command(
            "studies.claims.shrinkage",
            "Measure shrinkage by J, and whether two halves of the data teach one denoiser.",
        ),
        "claims": Command(
            "studies.archive.claims",
            "Tell which published claims hold here,",
            "Claims",
            "tell_claims",
        ),
        "dimension": Command(
            "studies.claims.dimension", "Estimate the local dimension of digits from J."
        ),
        "risk": Command(
            "studies.claims.risk", "Estimate the error of a denoiser without the truth."
        ),
        "quality": Command(
            "studies.claims.quality",
            "Ask whether better denoisers have larger leading eigenvalues.",
        ),
        "memorisation": Command(
            "studies.claims.memorisation", "Ask what J tells of memorised digits."
        ),
        "skewness": Command(
            "studies.claims.skewness", "Ask how much of a denoiser's error is skew."
        ),
    },
    "In the browser": {
        "explore": Command(
            "studies.explore.explore", "Look at J in the browser.", "Explore", "serve"
        ),
    },
    "Constrained sampling": {
        "inpaint": Command("studies.sampling.inpaint", "Complete half-known digits."),
        "superres": Command("studies.sampling.superres", "Enlarge shrunk digits, or --images"),
        "style": Command("studies.sampling.style_transfer", "Draw images in the style of others."),
        "guide": Command(
            "studies.sampling.guide", "Guide noise towards each class by a classifier."
        ),
        "convergence": Command(
            "studies.sampling.convergence",
            "Follow the error along sampling, beside what J predicts.",
        ),
        "directions-budget": Command(
            "studies.sampling.directions_budget",
            "Compare directions at equal network evaluations.",
        ),
        "posterior": Command(
            "studies.sampling.posterior", "Compare constrained samples with the exact posterior."
        ),
    },
    "Latent models": {
        "captions": Command("studies.latent.captions", "Draw digits from captions."),
        "vae-newton": Command(
            "studies.latent.vae_newton",
            "Compare VAE-Newton with back-propagation through the decoder.",
        ),
    },
    "Costs and the contest": {
        "benchmark products": Command(
            "studies.benchmarks.products",
            "Time J v and J^T u beside PyTorch's.",
            study="PRODUCTS",
        ),
        "benchmark dense": Command(
            "studies.benchmarks.dense",
            "Time the dense Jacobian beside PyTorch's, and its memory.",
            study="DENSE",
        ),
        "benchmark eigenpairs": Command(
            "studies.benchmarks.eigensolvers",
            "Check and time leading eigenpairs.",
            study="EIGENPAIRS",
        ),
        "benchmark training": Command(
            "studies.benchmarks.training_products",
            "Time a step of training with J v in its loss.",
            study="TRAINING",
        ),
        "benchmark memory": Command(
            "studies.benchmarks.memory",
            "Measure the peak memory of sampling, on Linux.",
            study="MEMORY",
        ),
        "benchmark sampler": Command(
            "studies.benchmarks.overhead",
            "Time constrained sampling beside DDIM, pass for pass.",
        ),
        "benchmark full-size": Command(
            "studies.benchmarks.full_size",
            "Count what the published models cost.",
        ),
        "benchmark growth": Command(
            "studies.benchmarks.growth", "Measure how cost grows with pixels and tokens."
        ),
        "benchmark cuda": Command(
            "studies.benchmarks.cuda",
            "Check J on a GPU in each precision, and time it.",
            study="CUDA",
        ),
        "benchmark contest": Command("studies.contest.contest", "Contest on inverse problems."),
        "benchmark contests": Command("studies.contest.joined", "Join finished contests."),
    },
    "Many runs": {
        "list": Command(
            "studies.archive.listing", "List the runs in a folder.", "ListRuns", "list_runs"
        ),
        "collect": Command(
            "studies.archive.tidy",
            "Collect the numbers of runs into one table.",
            "Collect",
            "collect_runs",
        ),
        "plot": Command("studies.archive.restyle", "Draw a run's figure anew.", "Plot", "plot_run"),
        "compare": Command(
            "studies.archive.compare", "Compare two runs of a study.", "Compare", "compare_runs"
        ),
        "sweep": Command(
            "studies.sweep",
            "Run a study for several models, digits, seeds or other options, on all cores or a"
            " cluster.",
            "SweepOptions",
            "sweep",
            reads_words=True,
        ),
        "report": Command(
            "studies.archive.report",
            "Report runs on one page for the browser.",
            "HtmlReport",
            "write_report",
        ),
        "results": Command(
            "studies.results",
            "Write the tables and figures of RESULTS.md.",
            "Results",
            "write_results",
        ),
    },
    "Training": {
        "train denoiser": Command(
            "studies.training", "Train the denoiser.", "DenoiserRecipe", "report_training"
        ),
        "train classifier": Command(
            "studies.training",
            "Train the classifier, the judge of samples.",
            "ClassifierRecipe",
            "report_training",
        ),
        "train limits": Command(
            "studies.training",
            "Train the network that names digits from observations, the contest's limit.",
            "LimitsRecipe",
            "report_training",
        ),
        "train autoencoder": Command(
            "studies.training",
            "Train the autoencoder of the latent model.",
            "AutoencoderRecipe",
            "report_training",
        ),
        "train latent": Command(
            "studies.training",
            "Train the text encoder and the U-Net of the latent model",
            "LatentRecipe",
            "report_training",
        ),
    },
}
"""Group -> name -> command."""
