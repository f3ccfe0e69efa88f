"""Which pictures are captioned, and what of them can be read."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from sgv_lab.errors import LabError
from sgv_lab.files import below

SMALLEST, LARGEST = 8, 10_000  # pixels of a side
BYTES = 100_000_000  # of a file
Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class Pictures:
    """Names below a root folder, each once; an Arrow array, so that a million take little room."""

    root: Path
    names: pa.Array

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> str:
        return self.names[number].as_py()

    def digest(self) -> str:
        """A hash of all names in their order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 10_000):
            digest.update("\n".join(self.names[start : start + 10_000].to_pylist()).encode())
        return digest.hexdigest()[:16]

    def ids(self) -> str:
        """What names a record: the file's "stem", as official, or its "path" if two share one."""
        stems = pc.replace_substring_regex(self.names, r"^.*/|\.[^./]*$", "")
        return "stem" if pc.count_distinct(stems).as_py() == len(self) else "path"


def find(images: str | Path | Pictures, root: str | Path | None = None) -> Pictures:
    """The pictures of a folder (by name), a list or a Parquet file (in its order), each once.

    A list is JSON (paths, or records with "image"), JSON lines of these, or a path a line; Parquet
    has a column "image". Paths start from ``root``, by default the folder, or the file's; in the
    official layout they tell a picture's source. Raises LabError if there is nothing, the file
    cannot be read, or the folder is not below ``root``. What was found already is given back.
    """
    if isinstance(images, Pictures):
        return images
    images = Path(images)
    root = Path(root or (images if images.is_dir() else images.parent))
    names = _below(images, root) if images.is_dir() else pc.unique(_listed(images))
    if not len(names):
        raise LabError("holds no pictures", where=images, fix="give a folder or list of pictures")
    return Pictures(root, names)


def _below(folder: Path, root: Path) -> pa.Array:
    if not folder.resolve().is_relative_to(root.resolve()):
        raise LabError("does not lie below the root", where=folder, fix=f"leave out {root}")
    suffixes, first = Image.registered_extensions(), folder.resolve().relative_to(root.resolve())
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    names = pa.array((str(first / path.relative_to(folder)) for path in found), pa.large_string())
    return names.take(pc.sort_indices(names))


def _listed(file: Path) -> pa.Array:
    try:
        if file.suffix == ".parquet":
            column = pq.read_table(file, columns=["image"])["image"]
            return column.cast(pa.large_string()).drop_null().combine_chunks()
        with file.open(encoding="utf-8") as lines:
            if file.suffix == ".json":
                entries: Iterable[object] = json.load(lines)
            elif file.suffix == ".jsonl":
                entries = map(json.loads, lines)
            else:
                entries = (line.rstrip("\n") for line in lines if line.strip())
            names = (e.get("image") if isinstance(e, dict) else e for e in entries)
            return pa.array((name for name in names if name is not None), pa.large_string())
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        fix = 'give paths, or records with "image", as JSON, JSON lines, text or Parquet'
        raise LabError(f"is no list of pictures ({error})", where=file, fix=fix) from error


def read(root: Path, name: str) -> tuple[bytes, Image.Image]:
    """A picture's file, and the picture in RGB.

    Raises LabError "kind: words" for one that is not to be captioned: unsafe (leads out of the
    root, or a decompression bomb), missing, corrupt, animated, colours (CMYK), depth (16 or 32
    bits a channel), size (a side below SMALLEST or above LARGEST).
    """
    try:
        path = below(root, name)
    except (LabError, OSError, ValueError) as error:
        raise LabError("unsafe: leads out of the root") from error
    if not path.is_file():
        raise LabError("missing: no such file")
    if path.stat().st_size > BYTES:
        raise LabError(f"unsafe: {path.stat().st_size:,} bytes")
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            _check(image)
            rgb = image.convert("RGB")
            rgb.format = image.format
            return data, rgb
    except LabError:
        raise
    except Image.DecompressionBombError as error:
        raise LabError("unsafe: a decompression bomb") from error
    except Exception as error:  # what a decoder raises at corrupt bytes is anybody's guess
        words = "no picture format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise LabError(f"corrupt: {words}".replace(str(root), "")[:160]) from error


def _check(image: Image.Image) -> None:
    """Raise LabError for what the header already rules out."""
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise LabError(f"unsafe: {image.width} x {image.height} pixels, a decompression bomb")
    if not SMALLEST <= min(image.size) <= max(image.size) <= LARGEST:
        raise LabError(f"size: {image.width} x {image.height} pixels")
    if getattr(image, "n_frames", 1) > 1:
        raise LabError(f"animated: {image.n_frames} frames")
    if image.mode == "CMYK":
        raise LabError("colours: CMYK")
    if image.mode[0] in "IF":
        raise LabError(f"depth: {image.mode}, more than 8 bits a channel")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, spare: int = 1
) -> Iterator[Result]:
    """``work`` of the items in threads, as it ends; at most ``spare`` results wait to be taken."""
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = {pool.submit(work, item) for item in islice(items, threads + spare)}
        try:
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in ended:
                    yield one.result()
                    waiting |= {pool.submit(work, item) for item in islice(items, 1)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
