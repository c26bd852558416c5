"""Pictures are checked by their header, opened late, and known by their content."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from marslora.core.errors import DataError
from marslora.data._media_cache import MediaCache
from marslora.data.pictures import Picture
from tests.unit.data.conftest import picture


def test_equal_content_has_an_equal_digest_wherever_it_lies(folder):
    data = (folder / "3.png").read_bytes()
    (folder / "copy.png").write_bytes(data)
    digests = {Picture(folder / "3.png").digest, Picture(folder / "copy.png").digest, Picture(data).digest}
    assert len(digests) == 1
    assert Picture(folder / "4.png").digest not in digests


def test_large_files_are_known_by_both_ends(tmp_path):
    start, middle, end = bytes(1 << 16), bytes(1 << 17), b"end"
    (tmp_path / "a").write_bytes(start + middle + end)
    (tmp_path / "b").write_bytes(start + middle + b"End")
    assert Picture(tmp_path / "a").digest != Picture(tmp_path / "b").digest
    assert Picture(tmp_path / "a").digest == Picture(start + middle + end).digest


def test_pictures_are_upright_and_rgb():
    gray = Image.new("L", (4, 6), 100)
    exif = gray.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    gray.save(buffer, "JPEG", exif=exif)
    opened = Picture(buffer.getvalue()).open()
    assert (opened.mode, opened.size) == ("RGB", (6, 4))


def test_a_good_header_over_damaged_pixels_is_found_when_it_is_opened(folder):
    data = (folder / "0.png").read_bytes()
    broken = Picture(data[: len(data) // 2])
    assert broken.problem is None and broken.size == (48, 48)
    with pytest.raises(DataError, match="cannot be decoded"):
        broken.open()


def test_a_decompression_bomb_is_refused(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "bomb" in Picture(folder / "0.png").problem


def test_a_file_that_many_rows_name_is_one_picture(folder):
    cache = MediaCache(folder)
    assert cache.get_picture("0.png") is cache.get_picture({"path": "0.png"})


def test_a_picture_in_memory_is_not_changed():
    original = picture()
    Picture(original).open().putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == picture().getpixel((0, 0))
