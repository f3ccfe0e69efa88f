"""ShareGPT4V's folder of pictures: what lies where, where to get it, and on which terms.

Folders and addresses: ShareGPT4V docs/Data.md (XC projects/ShareGPT4V/docs/Data.md). Terms are the
owners' in short; read them where the pictures come from.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

_HUB = "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain"
_VG = "https://cs.stanford.edu/people/rak248/VG_100K_2"
_WEB = "https://drive.google.com/drive/folders/1tCUQ-sq6vdshZVkF0ZeF3K4eztkXJgax"
_ACADEMIC = "collected by ShareGPT4V's authors: academic use only"


@dataclass(frozen=True)
class Place:
    """A folder of the official layout, relative to the data root."""

    folder: str
    where: str
    terms: str


PLACES = (
    Place("llava/llava_pretrain/images", f"{_HUB} (images.zip, LAION-CC-SBU 558K)",
          "the terms of LAION, CC3M and SBU; the pictures are their owners'"),
    Place("coco/train2017", "http://images.cocodataset.org/zips/train2017.zip",
          "Flickr's terms and each photo's own licence"),
    Place("sam/images", "https://ai.meta.com/datasets/segment-anything-downloads/, sa_000000 to "
          "sa_000050 (51 tars, about half a terabyte; some pictures of the records are not in "
          "them); the 9K of fine-tuning alone: link in ShareGPT4V docs/Data.md",
          "SA-1B Dataset Research License"),
    Place("gqa/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip",
          "CC BY 4.0 (GQA); photos from Visual Genome"),
    Place("ocr_vqa/images", "script in https://drive.google.com/drive/folders/"
          "1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_, every file saved as .jpg; some covers are gone",
          "book covers, the publishers'; for research"),
    Place("textvqa/train_images",
          "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
          "CC BY 4.0 (TextVQA); photos from Open Images"),
    Place("vg/VG_100K", f"{_VG}/images.zip", "CC BY 4.0 (Visual Genome)"),
    Place("vg/VG_100K_2", f"{_VG}/images2.zip", "CC BY 4.0 (Visual Genome)"),
    Place("share_textvqa/images", _WEB, _ACADEMIC),
    Place("web-celebrity/images", _WEB, _ACADEMIC),
    Place("web-landmark/images", _WEB, _ACADEMIC),
    Place("wikiart/images", _WEB, _ACADEMIC),
)  # fmt: skip


def folder(path: str) -> str:
    """The folder under which a picture is counted: the layout's (LCS has 660 below), or its own.

    >>> folder("llava/llava_pretrain/images/00012/7.jpg")
    'llava/llava_pretrain/images'
    """
    own, *above = (parent.as_posix() for parent in PurePosixPath(path).parents)
    return next((one.folder for one in PLACES if one.folder in (own, *above)), own)
