"""Which pictures are found, and which are refused with which words."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sgv_lab.captioning.pictures import find, read
from sgv_lab.errors import LabError


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    out = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        out += struct.pack(">I", len(data)) + kind + data + crc
    return out


def make_bad(root: Path) -> dict[str, str]:
    """Bad pictures below ``root``: name -> how the reason begins."""
    root.mkdir(parents=True, exist_ok=True)
    plain = Image.new("RGB", (32, 32), "red")
    plain.save(root / "cut.png")
    whole = (root / "cut.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "noise.jpg").write_bytes(os.urandom(500))
    (root / "empty.jpg").touch()
    (root / "bomb.png").write_bytes(_png_header(30_000, 30_000))
    (root / "half_bomb.png").write_bytes(_png_header(9_990, 9_990))
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(root / "moving.png", save_all=True, append_images=frames[1:])
    plain.convert("CMYK").save(root / "print.jpg")
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(root / "deep.png")
    Image.fromarray(np.ones((16, 16), np.float32)).save(root / "float.tiff")
    Image.new("RGB", (1, 1)).save(root / "dot.png")
    Image.new("RGB", (20_000, 10)).save(root / "wide.png")
    (root.parent / "secret.png").write_bytes(whole)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    return {
        "cut.png": "corrupt", "noise.jpg": "corrupt", "empty.jpg": "corrupt", "bomb.png": "unsafe",
        "half_bomb.png": "unsafe", "moving.gif": "animated: 2", "moving.png": "animated: 2",
        "print.jpg": "colours: CMYK", "deep.png": "depth: I;16", "float.tiff": "depth: F",
        "dot.png": "size: 1 x 1", "wide.png": "size: 20000 x 10", "link.png": "unsafe: leads out",
    }  # fmt: skip


def test_bad_pictures_are_refused_in_words(tmp_path):
    reasons = make_bad(tmp_path / "bad")
    assert set(find(tmp_path / "bad").names.to_pylist()) == reasons.keys()
    reasons |= {"../secret.png": "unsafe: leads out", str(tmp_path / "secret.png"): "unsafe: leads",
                "none.png": "missing", "a\0b.png": "unsafe", ".": "missing"}  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(LabError) as caught:
            read(tmp_path / "bad", name)
        assert str(caught.value).startswith(reason), name
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_good_pictures_come_in_rgb_with_their_files_bytes(tmp_path, mode):
    Image.new(mode, (20, 30)).save(tmp_path / "a.png")
    data, picture = read(tmp_path, "a.png")
    assert data == (tmp_path / "a.png").read_bytes()
    assert (picture.mode, picture.size, picture.format) == ("RGB", (20, 30), "PNG")


def test_a_folder_or_any_list_names_the_same_pictures(tmp_path):
    names = ["b/2.jpg", "a/1.png", "a/3.jpeg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/notes.md").touch()
    records = [{"id": n, "image": n, "conversations": []} for n in [*names, names[0]]]
    (tmp_path / "list.txt").write_text("\n".join([*names, "", names[1]]))
    (tmp_path / "paths.json").write_text(json.dumps(names))
    (tmp_path / "records.json").write_text(json.dumps([*records, {"id": "text only"}]))
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    pq.write_table(pa.table({"image": [*names, None, names[0]]}), tmp_path / "list.parquet")
    assert find(tmp_path).names.to_pylist() == sorted(names)
    for file in tmp_path.glob("*.*"):
        found = find(file)
        assert (found.names.to_pylist(), found.root) == (names, tmp_path), file
        assert find(file, "elsewhere").root == Path("elsewhere")
    assert find(tmp_path).digest() != find(tmp_path / "list.txt").digest()


def test_a_folders_names_begin_at_the_root(tmp_path):
    folder = tmp_path / "wikiart" / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "a.jpg")
    assert find(folder).names.to_pylist() == ["a.jpg"]
    found = find(folder, tmp_path)
    assert found.names.to_pylist() == ["wikiart/images/a.jpg"] and found.root == tmp_path
    with pytest.raises(LabError, match="does not lie below the root"):
        find(tmp_path, folder)


def test_what_is_no_list_is_refused(tmp_path):
    pq.write_table(pa.table({"picture": ["a.png"]}), tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text('{"images": [')
    (tmp_path / "c.json").write_text("[1, 2]")
    (tmp_path / "d.parquet").write_text("no")
    for name in ("a.parquet", "b.json", "c.json", "d.parquet", "none.txt"):
        with pytest.raises(LabError, match=f"{name}: is no list of pictures"):
            find(tmp_path / name)
    (tmp_path / "nothing.txt").touch()
    with pytest.raises(LabError, match="holds no pictures"):
        find(tmp_path / "nothing.txt")
