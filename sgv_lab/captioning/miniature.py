"""The 100K: what is collected about images, in the official file.

Without an address the images are drawn, a local endpoint answers, and the artefact store keeps
the result: it is the miniature's 100K, which later stages train on.
"""

from pathlib import Path

from sgv_lab import store
from sgv_lab.captioning import endpoint
from sgv_lab.captioning.collect import Terms, collect
from sgv_lab.captioning.merge import merge
from sgv_lab.captions import sources
from sgv_lab.closure import digest
from sgv_lab.errors import LabError
from sgv_lab.world.scene import MINIATURE

FILE = sources.SOURCES["ShareGPT4V"].file  # in the official folder "sharegpt4v"


def miniature_100k(count: int, seed: int = 0) -> tuple[Path, Path]:
    """The records of ``count`` drawn images, and the folder their paths start from."""
    images = sources.world(count, seed, 64, difficulty=MINIATURE)
    with endpoint.opened("", images) as url:
        terms = Terms(connections=8)  # the endpoint shares this process, and a few cores
        folder = collect_100k(url, endpoint.MODEL, images, "", terms, seed)
    return folder / "sharegpt4v" / FILE, images


def collect_100k(
    url: str, model: str, images: str | Path, out: str | Path, terms: Terms, seed: int = 0
) -> Path:
    """Collect captions of ``images`` at ``url``, merge them, and return the folder.

    It holds the records in sharegpt4v/FILE, and the run with all that was discarded in
    ``collected``. ``out``: where that is kept; "" is the store, for the local endpoint only, as
    captions that were paid for do not belong in a cache. Raises LabError as `collect` and `merge`
    do.
    """

    def build(folder: Path) -> None:
        collect(url, model, images, folder / "collected", terms, seed=seed)
        merge(folder / "collected", folder / "sharegpt4v", FILE.removesuffix(".json"))

    if out:
        build(Path(out))
        return Path(out)
    if model != endpoint.MODEL:
        raise LabError(f"captions by {model} need a folder", fix="give one as `out`")
    settings = {"model": model, "seed": seed, "temperature": terms.temperature}
    settings |= {"max_tokens": terms.max_tokens, "answers": digest(endpoint.opened)}
    return store.artifact("miniature-100k", settings, [images], build, resumes=True)
