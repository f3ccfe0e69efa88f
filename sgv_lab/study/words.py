"""The projector learns words: a patch becomes the sum of the embeddings of what it shows.

CLIP's features are aligned with language before LLaVA's projector sees them; the miniature's tower
was taught by labels. So its projector first learns, by least squares, to say each patch in the
language model's own (frozen) word embeddings: its place, the background and light, and the kind,
colour, size and pattern of the object in it.
"""

from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin, set_seed

from sgv_lab.study import tower
from sgv_lab.world.scene import region
from sgv_lab.world.vocabulary import LABELS, WHOLE

_SAID_EVERYWHERE = ("background", "light")
_SHARE = 0.5  # of these in every patch


class SpokenPatches(torch.nn.Module):
    """A projector whose loss is its distance from the patches' words.

    Patches with an object, a sixth of all, count as much together as those without.
    """

    def __init__(self, projector: torch.nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(
        self, features: torch.Tensor, said: torch.Tensor, filled: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """features (B, N, V), words' sums (B, N, D), filled (B, N) bool -> the loss."""
        errors = (self.projector(features) - said).square().sum(-1)
        return {"loss": errors[filled].mean() + errors[~filled].mean()}


def train(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pictures: tower.Pictures,
    out: Path,
    seed: int,
    *,
    steps: int,
) -> float:
    """Teach ``model``'s projector in place; returns the mean loss. Resumes as the tower does."""
    features = _features(model, processor, pictures)
    said = _said(model, processor, pictures)
    projector = model.model.multi_modal_projector
    with torch.no_grad():  # features are several times larger than words
        projector.linear_1.weight /= features.std()
        projector.linear_2.weight *= 0.5
    data = [
        {"features": f, "said": s, "filled": k.flatten() > 0}
        for f, s, k in zip(features, said, pictures.labels["kind"], strict=True)
    ]
    set_seed(seed)
    return tower.fit(SpokenPatches(projector), data, out, seed, steps, 64, 5e-3)


@torch.no_grad()
def _features(
    model: PreTrainedModel, processor: ProcessorMixin, pictures: tower.Pictures
) -> torch.Tensor:
    """(P, N, V) the tower's patches as the projector gets them."""
    eyes = tower.DenseTower(model.model.vision_tower, processor.image_processor, {}).eval()
    return torch.cat([eyes.patches(part) for part in pictures.pixels.split(256)])


def _said(
    model: PreTrainedModel, processor: ProcessorMixin, pictures: tower.Pictures
) -> torch.Tensor:
    """(P, N, D) the sums of the embeddings of the words that say each patch."""
    table = model.get_input_embeddings().weight.detach()

    def embedded(words: tuple[str, ...]) -> torch.Tensor:
        """(1 + words, D), the first row nothing; a word of several tokens is its first."""
        ids = [processor.tokenizer(w, add_special_tokens=False).input_ids[0] for w in words]
        return torch.cat([torch.zeros(1, table.shape[1]), table[ids]])

    labels, grid = pictures.labels, pictures.labels["kind"].shape[-1]
    total = sum(embedded(words)[labels[name]] for name, words in LABELS.items())
    for name in _SAID_EVERYWHERE:
        total = total + _SHARE * embedded(WHOLE[name])[labels[name]][:, None, None]
    places = [region((c + 0.5) / grid, (r + 0.5) / grid) for r in range(grid) for c in range(grid)]
    where = torch.stack([embedded(tuple(place.split())).sum(0) for place in places])
    return total.flatten(1, 2) + where
