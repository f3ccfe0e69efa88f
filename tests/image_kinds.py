"""One file of each kind that image folders hold, and what is to become of it."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        out += struct.pack(">I", len(data)) + kind + data + crc
    return out


def noise(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image no two pixels of which are likely to be alike."""
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(levels)


def make_broken(root: Path) -> dict[str, str]:
    """Files below ``root`` that are refused by name or header: name -> how the words begin."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "noise.jpg").write_bytes(np.random.default_rng(0).bytes(500))
    (root / "page.jpg").write_text("\n<!DOCTYPE html><html>404</html>")
    (root / "empty.jpg").touch()
    (root / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (root / "small_bomb.png").write_bytes(png_header(13_400, 13_400))
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    Image.new("RGB", (1, 300)).save(root / "narrow.png")
    Image.new("RGB", (20_000, 10)).save(root / "wide.png")
    (root / "lost.png").symlink_to("nowhere/x.png")
    (root / "itself.png").symlink_to("itself.png")
    return {
        "noise.jpg": "corrupt: no image format", "page.jpg": "corrupt: a web page",
        "empty.jpg": "empty: 0 bytes", "bomb.png": "unsafe", "small_bomb.png": "unsafe",
        "dot.png": "size: 1 x 1", "narrow.png": "size: 1 x 300", "wide.png": "size: 20000 x 10",
        "lost.png": "missing: lost.png is a link that leads nowhere",
        "itself.png": "missing: itself.png is a link that leads nowhere",
    }  # fmt: skip


def make_cut(root: Path) -> dict[str, str]:
    """Files that only decoding finds to be cut short: name -> how the words begin."""
    for name in ("cut.png", "cut.jpg", "cut.gif"):
        noise().save(root / name)
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    return dict.fromkeys(("cut.png", "cut.jpg", "cut.gif"), "corrupt: ")


def make_odd(root: Path) -> dict[str, str]:
    """Files that are read, but not as any viewer shows them: name -> the trait, or ""."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("phone.jpg", "moving.gif", "moving.png", "moving.webp", "pages.tiff"):
        kind = "MPO" if name == "phone.jpg" else None
        noise(0).save(root / name, kind, save_all=True, append_images=[noise(1), noise(2)])
    noise().convert("CMYK").save(root / "print.jpg")
    ramp = np.linspace(0, 65_535, 64 * 48).reshape(48, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(root / "deep.png")
    Image.fromarray(ramp.astype(np.uint16)).save(root / "deep.tiff")
    Image.fromarray(ramp.astype(np.float32)).save(root / "float.tiff")
    for mode in ("LA", "RGBA"):
        noise().convert(mode).save(root / f"{mode}.png")
    noise().quantize(16).save(root / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x112] = 6
    noise().save(root / "turned.jpg", exif=exif)
    return {
        "phone.jpg": "", "moving.gif": "animated", "moving.png": "animated",
        "moving.webp": "animated", "pages.tiff": "animated", "print.jpg": "cmyk",
        "deep.png": "deep", "deep.tiff": "deep", "float.tiff": "deep", "LA.png": "transparent",
        "RGBA.png": "transparent", "palette.png": "transparent", "turned.jpg": "turned",
    }  # fmt: skip
