"""The command `jacobian-lab STUDY [--options]`, and `jacobian-lab train MODEL`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import tyro

from jacobian_lab import InputError
from mnist.recipe import AutoencoderRecipe, ClassifierRecipe, DenoiserRecipe, LatentRecipe
from mnist.runs import Outcome
from mnist.train import perform as train
from studies.benchmarks import (
    eigensolvers as benchmark_eigenpairs,
)
from studies.benchmarks import (
    full_size,
)
from studies.benchmarks import (
    memory as benchmark_memory,
)
from studies.benchmarks import (
    products as benchmark,
)
from studies.contest import (
    contest,
)
from studies.frame.study import Study, perform
from studies.jacobian import (
    accuracy,
    audits,
    directions,
    eigenvalues,
    eigenvectors,
    evaluate,
    guidance,
    spectrum,
    symmetry,
)
from studies.latent import (
    captions,
    vae_newton,
)
from studies.sampling import (
    convergence,
    directions_budget,
    guide,
    inpaint,
    posterior,
    style_transfer,
    superres,
)

STUDIES: tuple[Study[Any], ...] = tuple(
    module.STUDY
    for module in (
        directions,
        eigenvalues,
        spectrum,
        eigenvectors,
        symmetry,
        accuracy,
        evaluate,
        convergence,
        directions_budget,
        posterior,
        inpaint,
        superres,
        style_transfer,
        guide,
        guidance,
        captions,
        vae_newton,
    )
)


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's slip, 130 for Ctrl-C."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                **{study.name: _command(study) for study in STUDIES},
                "audit": _audit,
                "benchmark": _benchmark,
                "train": _train,
            },
            description=(
                "The Jacobian of a diffusion model's denoiser: studies, and the small MNIST models"
                " behind them. Example: jacobian-lab directions --digit 3 --time 500"
            ),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:  # a run that can be resumed notes so
        print("\n" + ": ".join(["interrupted", *getattr(stop, "__notes__", ())]), file=sys.stderr)
        sys.exit(130)


def _command(study: Study[Any]) -> Any:
    def command(config: Any) -> None:
        _report(perform(study, config))

    command.__annotations__["config"] = Annotated[study.config, tyro.conf.arg(name="")]
    command.__doc__ = study.config.__doc__
    return command


def _report(outcome: Outcome) -> None:
    print(
        f"{outcome.folder}/: figure.png, figure.pdf, table.csv, data.npz, config.json,"
        f" manifest.json\n{outcome.how}"
    )


def _audit(config: Annotated[audits.Audit, tyro.conf.arg(name="")]) -> None:
    if not audits.report(config):
        sys.exit(1)


_audit.__doc__ = audits.Audit.__doc__


def _benchmark(
    config: Annotated[
        Annotated[benchmark.ProductsBenchmark, tyro.conf.subcommand("products")]
        | Annotated[benchmark.DenseBenchmark, tyro.conf.subcommand("dense")]
        | Annotated[benchmark_eigenpairs.EigenpairsBenchmark, tyro.conf.subcommand("eigenpairs")]
        | Annotated[benchmark_memory.MemoryBenchmark, tyro.conf.subcommand("memory")]
        | Annotated[full_size.FullSize, tyro.conf.subcommand("full-size")]
        | Annotated[contest.Contest, tyro.conf.subcommand("contest")],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Time what the library computes beside what one would otherwise write. Example: jacobian-lab
    benchmark dense.
    """
    match config:
        case benchmark.ProductsBenchmark():
            benchmark.products(config)
        case benchmark.DenseBenchmark():
            benchmark.dense(config)
        case benchmark_eigenpairs.EigenpairsBenchmark():
            benchmark_eigenpairs.compare_solvers(config)
        case benchmark_memory.MemoryBenchmark():
            benchmark_memory.compare_peaks(config)
        case full_size.FullSize():
            full_size.print_costs(config)
        case contest.Contest():
            _report(perform(contest.STUDY, config))


def _train(
    recipe: Annotated[
        Annotated[DenoiserRecipe, tyro.conf.subcommand("denoiser")]
        | Annotated[ClassifierRecipe, tyro.conf.subcommand("classifier")]
        | Annotated[AutoencoderRecipe, tyro.conf.subcommand("autoencoder")]
        | Annotated[LatentRecipe, tyro.conf.subcommand("latent")],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Train a small MNIST model. Example: jacobian-lab train denoiser --data-folder ~/data."""
    folder, how = train(recipe)
    path = folder / recipe.kind
    use = {
        "autoencoder": f"jacobian-lab train latent --autoencoder {path}",
        "latent": f"--model {path.with_name('pipeline')}",
    }.get(path.name, f"mnist.load_{path.name}({str(path)!r})")
    print(f"{path}.safetensors and its card {path}.json; use it by {use}\n{how}")


if __name__ == "__main__":
    main()
