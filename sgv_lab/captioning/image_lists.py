"""Which images are captioned."""

import codecs
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sgv_lab.captions.scan import HALF_PAIR, opened
from sgv_lab.errors import LabError
from sgv_lab.files import files_below
from sgv_lab.images import load_image


@dataclass(frozen=True)
class ImageList:
    """Names below a root folder, each once."""

    root: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> str:
        return self.names[number]

    def read(self, number: int) -> tuple[dict[str, Any], bytes, Image.Image | None]:
        """A row of the image (its number, hash or reason), its file's bytes, and itself in RGB."""
        row = {"index": number, "sha256": None, "caption": None}
        try:
            data, image = load_image(self.root, self[number])
        except LabError as error:
            return row | {"reason": str(error)}, b"", None
        return row | {"sha256": hashlib.sha256(data).hexdigest()}, data, image

    def digest(self) -> str:
        """A hash of all names in their order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 10_000):
            digest.update("\n".join(self.names[start : start + 10_000]).encode())
        return digest.hexdigest()[:16]

    def ids(self) -> str:
        """What names a record: the file's "stem", as official, or its "path" if two share one."""
        stems = {re.sub(r"^.*/|\.[^./]*$", "", name) for name in self.names}
        return "stem" if len(stems) == len(self) else "path"


def list_images(images: str | Path | ImageList, root: str | Path | None = None) -> ImageList:
    """The images of a folder (by name), a list or a Parquet file (in its order), each once.

    Linked folders are followed. A list is JSON (paths, or records with "image"), JSON lines of
    these, or a path a line, also gzipped; Parquet has a column "image". Paths start from ``root``,
    by default the folder, or the file's; in the official layout they tell an image's source. Raises
    LabError if there is nothing, the file cannot be read, or the folder is not below ``root``.
    """
    if isinstance(images, ImageList):
        return images
    images = Path(images)
    root = Path(root or (images if images.is_dir() else images.parent))
    names = _below(images, root) if images.is_dir() else list(dict.fromkeys(_listed(images)))
    if not names:
        raise LabError("holds no images", where=images, fix="give a folder or list of images")
    return ImageList(root, names)


def _below(folder: Path, root: Path) -> list[str]:
    suffixes, first = Image.registered_extensions(), _inside(folder, root)
    found = (path for path in files_below(folder) if path.suffix.lower() in suffixes)
    names = sorted(str(first / path.relative_to(folder)) for path in found)
    if bad := next(filter(HALF_PAIR.search, names), None):
        what = f"the file name {bad!r} is not in UTF-8"
        raise LabError(what, where=folder, fix="rename the file")
    return names


def _inside(folder: Path, root: Path) -> Path:
    """``folder`` relative to ``root``: as it is written, else where links lead."""
    for path in (Path(os.path.normpath(folder.absolute())), folder.resolve()):
        for above in (path, *path.parents):
            if above.resolve() == root.resolve():
                return path.relative_to(above)
    raise LabError("does not lie below the root", where=folder, fix=f"leave out {root}")


class _Entry(msgspec.Struct):
    image: str | None = None


def _listed(file: Path) -> list[str]:
    """What a list names, by its first character: a JSON array, JSON lines, or paths."""
    try:
        with opened(file) as stream:
            data = stream.read().removeprefix(codecs.BOM_UTF8)
        start = data.lstrip()[:1]
        if file.suffix == ".parquet":
            table = pq.read_table(pa.BufferReader(data), columns=["image"])
            entries = table["image"].cast(pa.string()).to_pylist()
        elif start == b"[":
            entries = msgspec.json.decode(data, type=list[str | _Entry])
        elif start in (b"{", b'"'):
            entries = msgspec.json.Decoder(str | _Entry).decode_lines(data)
        else:
            lines = (line.rstrip(" \t\r") for line in data.decode().split("\n"))
            entries = [line for line in lines if line]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        fix = 'give paths, or records with "image", as JSON, JSON lines, text or Parquet'
        raise LabError(f"is no list of images ({error})", where=file, fix=fix) from error
    names = (one.image if isinstance(one, _Entry) else one for one in entries)
    return [name for name in names if name is not None]
