"""Which images a folder or a list names."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sgv_lab.captioning.image_lists import list_images
from sgv_lab.errors import LabError
from sgv_lab.images import load_image


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_good_images_come_in_rgb_with_their_files_bytes(tmp_path, mode):
    Image.new(mode, (20, 30)).save(tmp_path / "a.png")
    data, image = load_image(tmp_path, "a.png")
    assert data == (tmp_path / "a.png").read_bytes()
    assert (image.mode, image.size, image.format) == ("RGB", (20, 30), "PNG")


def test_a_folder_or_any_list_names_the_same_images(tmp_path):
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
    assert list_images(tmp_path).names == sorted(names)
    for file in tmp_path.glob("*.*"):
        found = list_images(file)
        assert (found.names, found.root) == (names, tmp_path), file
        assert list_images(file, "elsewhere").root == Path("elsewhere")
    assert list_images(tmp_path).digest() != list_images(tmp_path / "list.txt").digest()


def test_a_folders_names_begin_at_the_root(tmp_path):
    folder = tmp_path / "wikiart" / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "a.jpg")
    assert list_images(folder).names == ["a.jpg"]
    found = list_images(folder, tmp_path)
    assert found.names == ["wikiart/images/a.jpg"] and found.root == tmp_path
    with pytest.raises(LabError, match="does not lie below the root"):
        list_images(tmp_path, folder)


def test_what_is_no_list_is_refused(tmp_path):
    pq.write_table(pa.table({"file": ["a.png"]}), tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text('{"images": [')
    (tmp_path / "c.json").write_text("[1, 2]")
    (tmp_path / "d.parquet").write_text("no")
    for name in ("a.parquet", "b.json", "c.json", "d.parquet", "none.txt"):
        with pytest.raises(LabError, match=f"{name}: is no list of images"):
            list_images(tmp_path / name)
    (tmp_path / "nothing.txt").touch()
    with pytest.raises(LabError, match="holds no images"):
        list_images(tmp_path / "nothing.txt")


@pytest.mark.parametrize("packed", [False, True])
def test_lists_as_other_systems_write_them(tmp_path, packed):
    records = [{"id": 1, "image": "a.jpg", "conversations": []}, {"id": 2}, {"image": "ä b,c.png"}]
    lines = "\r\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    contents = {
        "dos.txt": "a.jpg\r\n\r\nä b,c.png \t\r\n",
        "plain": "a.jpg\nä b,c.png",
        "array.txt": json.dumps(records),
        "lines.json": lines + "\r\n\r\n",
        "lines.txt": lines,
        "paths.jsonl": '"a.jpg"\n"ä b,c.png"\n',
    }
    for name, text in contents.items():
        for mark in ("", "\ufeff"):
            data = (mark + text).encode()
            (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
            assert list_images(tmp_path / name).names == ["a.jpg", "ä b,c.png"], name


def test_linked_folders_are_captioned_under_the_names_they_are_given(tmp_path):
    disk, data = tmp_path / "disk" / "sam" / "images", tmp_path / "data"
    disk.mkdir(parents=True)
    data.mkdir()
    Image.new("RGB", (40, 40)).save(disk / "a.jpg")
    (data / "sam").symlink_to(disk.parent)
    (disk / "up").symlink_to(tmp_path)
    (tmp_path / "root").symlink_to(data)
    for root in (data, tmp_path / "root"):
        assert list_images(root).names == ["sam/images/a.jpg"]
        # a folder below the root by its name, through a link, or where links lead
        for folder in (root / "sam", root / "sam" / "images", data / "sam" / "images"):
            assert list_images(folder, root).names == ["sam/images/a.jpg"]
        with pytest.raises(LabError, match="does not lie below the root"):
            list_images(disk, root)


def test_a_file_name_that_is_not_unicode_is_named(tmp_path):
    try:
        (tmp_path / "a\udce9.jpg").touch()
    except OSError:
        pytest.skip("this file system takes Unicode alone")
    with pytest.raises(LabError, match="is not in UTF-8"):
        list_images(tmp_path)
