"""What is wrong with an image file, found without decoding it."""

from pathlib import Path

from PIL import Image

from sgv_lab.errors import LabError
from sgv_lab.files import below


def image_problem(root: Path, relative: str) -> str | None:
    """What is wrong with the image ``root / relative``, as "kind: words"; None if nothing is.

    By its size and header; nothing is decoded.
    """
    try:
        path = below(root, relative)
        if not path.is_file():
            return "missing: no such file"
        if not path.stat().st_size:
            return "empty: 0 bytes"
        with Image.open(path):
            return None
    except (LabError, ValueError):
        return "unsafe: leads out of the root"
    except Exception:  # Pillow's plugins raise many kinds on broken data
        return "corrupt: no image format"
