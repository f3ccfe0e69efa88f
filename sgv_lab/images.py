"""The one place that opens image files: what each kind gives, and what is wrong with a file.

Captioning (by a checkpoint or an endpoint), plans, training, evaluation and ``stats --images`` all
read a file alike: as ShareGPT4V's training code, by ``Image.open(path).convert("RGB")``.

Refused, as "kind: words":
- unsafe: a path that leaves its root ("..", absolute); what Pillow calls a decompression bomb, by
  its usual limit above 178 megapixels
- missing: no such file, a link that leads nowhere, a folder, a file that may not be read
- empty: 0 bytes
- size: a side below SMALLEST pixels, or over RATIO times the other; a file above BYTES
- corrupt: no image format (web pages), cut short, damaged

Read, and counted by ``stats --images``:
- deep: grey of 16 or 32 bits, cut off at 255 (16-bit colour loses its low byte and looks right)
- animated: several frames or pages (GIF, WebP, APNG, TIFF), of which the first is read
- cmyk: the colours of print, converted without a profile
- transparent: the colours behind the transparency are what is seen
- turned: its EXIF orientation is ignored

Read like any other: phones' multi-picture JPEGs (MPO; the first is the photo), grey, palettes.
"""

import errno
import io
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from sgv_lab.errors import LabError
from sgv_lab.files import in_threads, leaves_root

REFUSED = ("unsafe", "missing", "empty", "size", "corrupt")
SMALLEST = 8  # pixels of a side
RATIO = 200  # of the sides: what Qwen3-VL takes; a centre crop blows the short side up
BYTES = 100_000_000  # of a file
# From half that size on Pillow warns; the authors trained on such images.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def image_kinds(root: Path, relative: str) -> dict[str, str]:
    """Which of the kinds above an image file is of, each with words; it is decoded.

    One that is refused is of the kind it is refused for, alone.
    """
    try:
        with opened_image(root, relative) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))  # a JPEG: faster
            image.load()
            return image_traits(image)
    except LabError as error:
        kind, _, words = str(error).partition(": ")
        return {kind: words}


def images_kinds(root: Path, paths: Iterable[str]) -> Iterator[dict[str, str]]:
    """What `image_kinds` says of each path, in order."""
    return in_threads(partial(image_kinds, root), paths)


def image_problem(kinds: Mapping[str, str]) -> str | None:
    """Why a file of these `image_kinds` is refused, as "kind: words", or None."""
    return next((f"{kind}: {words}" for kind, words in kinds.items() if kind in REFUSED), None)


def load_image(root: Path, relative: str) -> tuple[bytes, Image.Image]:
    """An image file's bytes, and the image in RGB as `decode_image` gives it.

    Raises LabError "kind: words" for a file that is refused.
    """
    with _file(root, relative) as file:
        data = file.read()
    return data, decode_image(data)


def decode_image(data: bytes) -> Image.Image:
    """The image in RGB behind the bytes of a file.

    ``format`` is the file's if any reader shows the same image ("JPEG" for MPO), else None. Raises
    LabError "kind: words" for bytes that are refused.
    """
    _check_bytes(len(data))
    with _opened(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
        if image_traits(image).keys().isdisjoint(("deep", "animated", "cmyk")):
            rgb.format = "JPEG" if image.format == "MPO" else image.format
        return rgb


@contextmanager
def opened_image(root: Path, relative: str) -> Iterator[Image.Image]:
    """An image file whose header is sound; what decoding it here raises becomes "corrupt".

    Raises LabError "kind: words" for a file that is refused.
    """
    with _file(root, relative) as file, _opened(file) as image:
        yield image


def image_traits(image: Image.Image) -> dict[str, str]:
    """Kinds of the second list above that an open image is of, each with words. Seeks in it."""
    found = {}
    if image.mode[0] in "IF":
        found["deep"] = f"mode {image.mode}"
    with suppress(Exception):  # a later frame may be damaged, and is not read
        if image.format not in ("MPO", "PSD") and getattr(image, "is_animated", False):
            found["animated"] = f"a {image.format} of several frames"
    if image.mode == "CMYK":
        found["cmyk"] = "mode CMYK"
    if image.has_transparency_data:
        found["transparent"] = f"mode {image.mode}"
    with suppress(Exception):  # EXIF may be damaged
        if (turn := image.getexif().get(ExifTags.Base.Orientation, 1)) != 1:
            found["turned"] = f"EXIF orientation {turn}"
    return found


def _file(root: Path, relative: str) -> BinaryIO:
    """An image file, open, or a LabError for what its name and one stat tell."""
    if leaves_root(relative):
        raise LabError("unsafe: leads out of the root")
    path = root / relative
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LabError("missing: a folder or device, no file")
        _check_bytes(status.st_size)
        return path.open("rb")
    except LabError:
        raise
    except OSError as error:
        raise LabError(f"missing: {_why_missing(root, relative, error)}") from error
    except ValueError as error:  # a name that no file system takes
        raise LabError("missing: no such file") from error


def _why_missing(root: Path, relative: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ELOOP):
        inside = Path(relative)
        for part in (*reversed(inside.parents), inside):  # from the root downwards
            if (root / part).is_symlink() and not (root / part).exists():
                return f"{part if part.name else 'the root'} is a link that leads nowhere"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such file"
    return error.strerror or "cannot be read"


def _check_bytes(count: int) -> None:
    if count == 0:
        raise LabError("empty: 0 bytes")
    if count > BYTES:
        raise LabError(f"size: {count:,} bytes")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            short, long = sorted(image.size)
            if short < SMALLEST or long > RATIO * short:
                raise LabError(f"size: {image.width} x {image.height} pixels")
            yield image
    except LabError:
        raise
    except Image.DecompressionBombError as error:
        raise LabError("unsafe: a decompression bomb") from error
    except Image.UnidentifiedImageError as error:
        file.seek(0)
        page = file.read(100).lstrip().startswith(b"<")
        raise LabError(f"corrupt: {'a web page' if page else 'no image format'}") from error
    except Exception as error:  # decoders raise many kinds at damaged bytes
        raise LabError(f"corrupt: {error or type(error).__name__}"[:160]) from error
