"""The command `jacobian-lab train MODEL`."""

from __future__ import annotations

from mnist.recipe import AutoencoderRecipe as AutoencoderRecipe
from mnist.recipe import ClassifierRecipe as ClassifierRecipe
from mnist.recipe import DenoiserRecipe as DenoiserRecipe
from mnist.recipe import LatentRecipe as LatentRecipe
from mnist.recipe import LimitsRecipe as LimitsRecipe
from mnist.recipe import Recipe
from mnist.train import train_or_resume


def report_training(recipe: Recipe) -> None:
    """Train a model; print where it is, and how it is used."""
    outcome = train_or_resume(recipe)
    folder, how = outcome.folder, outcome.how
    path = folder / recipe.kind
    use = {
        "autoencoder": f"jacobian-lab train latent --autoencoder {path}",
        "latent": f"--model {path.with_name('pipeline')}",
    }.get(path.name, f"mnist.load_{path.name}({str(path)!r})")
    print(f"{path}.safetensors and its card {path}.json; use it by {use}\n{how}")
