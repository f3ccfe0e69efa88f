"""The projector learns words: a patch becomes the sum of the embeddings of what it shows.

CLIP's features are aligned with language before LLaVA's projector sees them; the miniature's tower
was taught by labels. So its projector first learns, by least squares, to say each patch in the
language model's own (frozen) word embeddings: place, background, light, and the object in it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, ProcessorMixin, set_seed

from sgv_lab import store
from sgv_lab.base.lessons import training_scenes
from sgv_lab.base.vision_tower import CROWDED, DenseImages, DenseTower, fit
from sgv_lab.errors import LabError
from sgv_lab.files import atomic, write_jsonl
from sgv_lab.models import checkpoints, families
from sgv_lab.models.architectures import part, passes_on
from sgv_lab.world.scene import Scene, region
from sgv_lab.world.vocabulary import LABELS, WHOLE

_SAID_EVERYWHERE = ("background", "light")
BATCH, RATE = 64, 5e-3
_SHARE = 0.5  # of these in every patch
Loaded = tuple[PreTrainedModel, ProcessorMixin]


def align_projector(start: Path, images: int, steps: int, seed: int) -> Path:
    """The checkpoint ``start`` with a projector that says what patches show, made once.

    Beside it lies metrics.jsonl, the learning curve.
    """

    def build(out: Path) -> None:
        model, processor = checkpoints.load(start)
        scenes = training_scenes(images, seed + 1, CROWDED)
        seen = DenseImages(scenes, model.config.vision_config.image_size)
        features = patch_features(model, processor, seen)
        said = patch_words(model, processor, seen)
        filled = seen.labels["kind"].flatten(1) > 0
        layers = learning_layers(model)
        with torch.no_grad():  # features are several times larger than words
            layers[0].weight /= features.std()
            layers[-1].weight *= 0.5
        model.requires_grad_(False)
        for one in _speaking(model):
            one.requires_grad_()
        data = [
            {"features": f, "said": s, "filled": k}
            for f, s, k in zip(features, said, filled, strict=True)
        ]
        set_seed(seed)
        curve = fit(SpokenPatches(model), data, out, seed, steps, BATCH, RATE)
        checkpoints.save(model, processor, out / "model")
        write_jsonl(out / "model" / "metrics.jsonl", curve)

    settings = {"images": images, "steps": steps, "seed": seed, "batch": BATCH}
    return store.artifact("aligned-projector", settings, [start], build) / "model"


@torch.no_grad()
def renew_projector(model: PreTrainedModel, processor: ProcessorMixin, seed: int) -> None:
    """Give the model a projector that has learned nothing yet, scaled to what the tower says.

    Of a resampler its key/value and output layers are new. Its queries, attention weights and norms
    stay as taught: to learn where to look from captions takes far more of them.
    """
    shown = DenseImages(training_scenes(64, seed, CROWDED), model.config.vision_config.image_size)
    set_seed(seed)
    layers = learning_layers(model)
    for one in layers:
        one.reset_parameters()
    layers[0].weight /= patch_features(model, processor, shown).std()
    layers[-1].weight *= 0.2  # words are short


def learning_layers(model: PreTrainedModel) -> list[torch.nn.Linear]:
    """The projector's layers in order, without one that gives what it is given."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and part(f"{name}.") == "projector"
        and not passes_on(model.config, f"{name}.")
    ]


def _speaking(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """What learns to say patches: a projector's layers, or all that follows a Qwen-VL's blocks."""
    if model.config.model_type != "qwen_vl":
        return [weight for layer in learning_layers(model) for weight in layer.parameters()]
    visual = model.model.visual
    pool = [w for name, w in visual.attn_pool.named_parameters() if name != "pos_embed"]
    return [*pool, *visual.ln_post.parameters(), visual.proj]


def change_projector(start: Path, family: str) -> Path:
    """The checkpoint ``start`` as one of ``family``, behind an untrained projector; made once.

    All else is ``start``'s own; LabError where it does not fit the family.
    """

    def build(out: Path) -> None:
        checkpoints.save(*_behind_another(start, family), out / "model")

    return store.artifact("changed-projector", {"family": family}, [start], build) / "model"


def _behind_another(checkpoint: Path, family: str) -> Loaded:
    """Model and processor of `change_projector`."""
    model, processor = checkpoints.load(checkpoint)
    made = families.build(family, "mini", 0)
    kept, its = (
        {name: weight for name, weight in one.state_dict().items() if part(name) != "projector"}
        for one in (model, made)
    )
    if {n: w.shape for n, w in kept.items()} != {n: w.shape for n, w in its.items()}:
        fix = "take a checkpoint of a family that has the same ones"
        raise LabError(f"not the tower and language model of {family}", where=checkpoint, fix=fix)
    made.load_state_dict(kept, strict=False)
    return made, processor


def keep_eyes(eyes: Path, folder: Path, family: str) -> Path:
    """The file eyes-N.safetensors in ``folder``, beside the bases: a language model's own eyes.

    It holds the projector of ``eyes``, a checkpoint of ``family``, in half precision. N counts
    language models; what was kept of the same one is replaced.
    """
    model, _ = checkpoints.load(eyes, dtype=torch.float16)
    which, known = checkpoints.weights_hash(model.model.language_model), _kept_eyes(folder)
    weights = {n: w.data for n, w in model.named_parameters() if part(n) == "projector"}
    path = known.get(which, folder / f"eyes-{len(known) + 1}.safetensors")
    with atomic(path) as temporary:
        save_file(weights, temporary, {"family": family, "language_model": which})
    return path


def _kept_eyes(folder: Path) -> dict[str, Path]:
    """The hash of each language model whose own eyes a folder holds -> their file."""
    found = {}
    for path in sorted(folder.glob("eyes-*.safetensors")):
        with safe_open(path, "pt") as file:
            found[file.metadata()["language_model"]] = path
    return found


def own_eyes_file(base: Path) -> Path:
    """The file beside a base that holds its language model's own eyes; LabError if none does."""
    model, _ = checkpoints.load(base, dtype=torch.float16)
    known = _kept_eyes(base.parent)
    if found := known.get(checkpoints.weights_hash(model.model.language_model)):
        return found
    fix = "put them beside it with sgv_lab.base.projector.keep_eyes"
    raise LabError("its language model's own eyes are not kept", where=base, fix=fix)


def own_eyes(base: Path) -> Loaded:
    """Model and processor of a base behind the projector that its language model grew up with."""
    path = own_eyes_file(base)
    with safe_open(path, "pt") as file:
        model, processor = _behind_another(base, file.metadata()["family"])
    model.load_state_dict(load_file(path), strict=False)
    return model, processor


class SpokenPatches(torch.nn.Module):
    """A model whose loss is the distance of its projected patches from their words.

    Patches with an object, a sixth of all, count as much together as those without.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: torch.Tensor, said: torch.Tensor, filled: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """features (B, N, V), words' sums (B, N, D), filled (B, N) bool -> the loss."""
        errors = (projected(self.model, features) - said).square().sum(-1)
        return {"loss": errors[filled].mean() + errors[~filled].mean()}


def projected(model: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    """What the language model is given of patches' features, (B, N, V) -> (B, N, D)."""
    if model.config.model_type == "qwen_vl":
        return model.model.visual.project(features)
    return model.model.multi_modal_projector(features)


@torch.no_grad()
def patch_features(
    model: PreTrainedModel, processor: ProcessorMixin, images: DenseImages
) -> torch.Tensor:
    """(P, N, V) what the projector is given of each image's patches."""
    eyes = DenseTower(model, processor.image_processor, {}).eval()
    return torch.cat([eyes.patches(part) for part in images.pixels.split(256)])


def patch_words(
    model: PreTrainedModel, processor: ProcessorMixin, images: DenseImages
) -> torch.Tensor:
    """(P, N, D) the sums of the embeddings of the words that say each patch."""
    table = model.get_input_embeddings().weight.detach()

    def embedded(words: tuple[str, ...]) -> torch.Tensor:
        """(1 + words, D), the first row nothing."""
        ids = word_ids(processor, words)
        return torch.cat([torch.zeros(1, table.shape[1]), table[ids]])

    labels, grid = images.labels, images.labels["kind"].shape[-1]
    total = sum(embedded(words)[labels[name]] for name, words in LABELS.items())
    for name in _SAID_EVERYWHERE:
        total = total + _SHARE * embedded(WHOLE[name])[labels[name]][:, None, None]
    places = [region((c + 0.5) / grid, (r + 0.5) / grid) for r in range(grid) for c in range(grid)]
    where = torch.stack([embedded(tuple(place.split())).sum(0) for place in places])
    return total.flatten(1, 2) + where


def word_ids(processor: ProcessorMixin, words: Sequence[str]) -> list[int]:
    """The first token of each word as it stands within a text."""
    before = len(processor.tokenizer("a", add_special_tokens=False).input_ids)
    texts = [f"a {word}" for word in words]
    return [ids[before] for ids in processor.tokenizer(texts, add_special_tokens=False).input_ids]


@torch.no_grad()
def words_in_patches(checkpoint: Path, shown: Scene) -> list[str]:
    """For each patch of an image, row by row, the three words that its projection is nearest to."""
    model, processor = checkpoints.load(checkpoint)
    images = DenseImages([shown], model.config.vision_config.image_size)
    (said,) = projected(model, patch_features(model, processor, images))
    words = [w for of in (*LABELS.values(), *(WHOLE[n] for n in _SAID_EVERYWHERE)) for w in of]
    table = model.get_input_embeddings().weight[word_ids(processor, words)]
    nearest = (said @ table.T).topk(3).indices.tolist()
    return [", ".join(words[i] for i in row) for row in nearest]
