"""Pictures and sounds survive decoding: right, said, or refused by name; never another picture without a word."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageCms, ImageDraw

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data import _pixels
from marslora.data._media_cache import MediaCache
from marslora.data.check import check_data
from marslora.data.encode import encode
from marslora.data.pictures import Picture
from marslora.data.sounds import Sound, encode_wav
from marslora.data.splits import load_splits
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import picture, row, tone, write_lines

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)
EIGHT_BITS = (RAMP * 255).astype(int)


def save(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def opened(data, **options):
    return np.asarray(Picture(data, **options).open()).astype(int)


DEEP = {
    "16 bits in PNG": (RAMP * 65535, np.uint16, "PNG", "16 bits"),
    "16 bits in TIFF": (RAMP * 65535, np.uint16, "TIFF", "16 bits"),
    "32 bits": (RAMP * (2**31 - 1), np.int32, "TIFF", "32-bit integers"),
    "32 bits, few used": (RAMP * 1000 + 300, np.int32, "TIFF", "32-bit integers"),
    "32 bits, negative too": (RAMP * 2000 - 1000, np.int32, "TIFF", "32-bit integers"),
    "8 bits in 32": (RAMP * 255, np.int32, "TIFF", "32-bit integers"),
    "0 to 1": (RAMP, np.float32, "TIFF", "floating-point"),
    "0 to 255": (RAMP * 255, np.float32, "TIFF", "floating-point"),
    "any range": (RAMP * 7 - 3, np.float32, "TIFF", "floating-point"),
}


@pytest.mark.parametrize(("values", "dtype", "name", "said"), DEEP.values(), ids=DEEP)
def test_deep_grey_values_are_scaled_to_8_bits_and_said(values, dtype, name, said):
    data = save(Image.fromarray(values.astype(dtype)), name)
    assert np.abs(opened(data) - EIGHT_BITS[..., None]).max() <= 1
    assert said in Picture(data).notes[0]


def text_picture(mode, ink, paper):
    image = Image.new(mode, (64, 48), paper)
    ImageDraw.Draw(image).text((4, 4), "black", fill=ink)
    return image


def with_transparent_colour(mode):
    image = Image.new(mode, (64, 48), 1)
    ImageDraw.Draw(image).text((4, 4), "black", fill=0)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])
    return image


TRANSPARENT = {
    "RGBA in PNG": save(text_picture("RGBA", (0, 0, 0, 255), (0, 0, 0, 0)), "PNG"),
    "RGBA in WebP": save(text_picture("RGBA", (0, 0, 0, 255), (0, 0, 0, 0)), "WEBP", lossless=True),
    "LA": save(text_picture("LA", (0, 255), (0, 0)), "PNG"),
    "P": save(with_transparent_colour("P"), "PNG", transparency=1),
    "P in GIF": save(with_transparent_colour("P"), "GIF", transparency=1),
    "L with a transparent grey": save(with_transparent_colour("L"), "PNG", transparency=1),
}


@pytest.mark.parametrize("data", TRANSPARENT.values(), ids=TRANSPARENT)
@pytest.mark.parametrize("max_pixels", [1 << 24, 1000])
def test_black_text_on_a_transparent_picture_stays_black_on_white(data, max_pixels):
    values = opened(data, max_pixels=max_pixels)
    assert values[0, 0].tolist() == [255, 255, 255] and values.min() < (20 if max_pixels > 1000 else 160)
    assert "pictures with alpha: laid on white" in Picture(data).notes


def test_a_16_bit_picture_with_a_transparent_grey():
    values = np.full((8, 8), 40000, np.uint16)
    values[2:4] = 0
    data = save(Image.fromarray(values), "PNG", transparency=40000)
    assert opened(data)[0, 0].tolist() == [255] * 3 and opened(data)[2, 0].tolist() == [0] * 3


MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "PA", "La", "RGBa", "RGBX", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_in_memory_of_any_mode_keeps_its_content(mode):
    source = picture(5).convert("LA" if mode == "La" else "RGBA" if mode == "RGBa" else "RGB")
    image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) << 8) if mode == "I;16" else None
    shown = np.asarray(Picture(image or source.convert(mode)).open()).astype(int)
    expected = np.asarray(source.convert("RGB") if mode in ("RGB", "RGBA", "RGBa", "RGBX") else source.convert("L"))
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert np.corrcoef(shown.mean(axis=2).ravel(), expected.mean(axis=2).ravel())[0, 1] > 0.5


LOST = {
    "white on transparent": save(text_picture("RGBA", (255,) * 4, (0, 0, 0, 0)), "PNG"),
    "16 bits that use 7": save(Image.fromarray((RAMP * 100).astype(np.uint16)), "PNG"),
    "not a number": save(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
}


@pytest.mark.parametrize("data", LOST.values(), ids=LOST)
def test_a_picture_that_would_lose_everything_is_refused(data):
    with pytest.raises(DataError, match=r"image of \d+ bytes (is of one colour|holds values).*save it"):
        Picture(data).open()


@pytest.mark.parametrize("image", [Image.new("RGBA", (5, 5), (9, 9, 9, 0)), Image.new("L", (5, 5), 7)])
def test_a_picture_of_one_colour_stays_one(image):
    assert _pixels.is_constant(Picture(save(image, "PNG")).open())


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_of_the_upright_picture(name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = Picture(save(picture(1, 40, 20), name, exif=exif))
    assert found.size == found.open().size == ((40, 20) if orientation < 5 else (20, 40))


def test_damaged_exif_does_not_cost_the_picture():
    data = save(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert Picture(data).problem is None and Picture(data).open().size == (48, 48)


def test_the_first_of_several_frames_is_taken_and_said():
    frames = [picture(seed).quantize(16) for seed in range(3)]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Picture(data).notes == ("pictures with several frames: the first is taken",)
    assert np.array_equal(opened(data), np.asarray(frames[0].convert("RGB")))


def test_cmyk_follows_its_colour_profile():
    plain = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert opened(save(plain, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    assert "CMYK" in Picture(save(plain, "JPEG")).notes[0]
    assert opened(save(plain, "TIFF", icc_profile=b"damaged"))[0, 0].tolist() == [255, 0, 0]


def test_a_colour_profile_is_applied_to_cmyk(monkeypatch):
    seen = []
    monkeypatch.setattr(
        ImageCms,
        "profileToProfile",
        lambda image, source, target, outputMode: seen.append(source) or image.convert("RGB"),
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Picture(save(Image.new("CMYK", (4, 4)), "TIFF", icc_profile=profile)).open()
    assert len(seen) == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_larger_pictures_are_scaled_down_and_said(mode):
    source = picture(3, 300, 100)
    image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or source.convert(mode)
    found = Picture(save(image, "TIFF" if mode in ("F", "CMYK") else "PNG"), max_pixels=1000)
    assert found.size == found.open().size == (54, 18)
    assert "pictures of more than 1,000 pixels (`max_pixels`): scaled down" in found.notes


@pytest.mark.parametrize("size", [(1, 1), (100, 10), (1, 5000), (5000, 1), (33, 31), (1000, 1)])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_a_limited_size_has_the_shape_and_at_most_the_pixels(size, most):
    width, height = _pixels.limit_size(size, most)
    assert 1 <= width * height <= max(most, 1) and width <= size[0] and height <= size[1]


@pytest.mark.parametrize("name", ["EPS", "PDF"])
def test_only_grids_of_pixels_are_opened(name):
    assert "as a grid of pixels" in Picture(save(picture(), name)).problem


def test_reports_count_what_is_changed(tmp_path):
    (tmp_path / "a.png").write_bytes(TRANSPARENT["LA"])
    rows = [row(f"{number}?", "x", "a.png") for number in range(3)]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    assert check_data([source]).notes == {"pictures with alpha: laid on white": 3}
    report = load_splits(DataSpec(train=(source,))).report
    assert report.notes == {"pictures with alpha: laid on white": 3}
    assert "pictures with alpha: 3 rows, laid on white" in report.warnings


def test_the_limit_reaches_the_processor_and_names_the_cache(tmp_path):
    picture(1, 90, 90).save(tmp_path / "a.png")
    source = write_lines(tmp_path / "rows.jsonl", [row(f"{number}?", "x", "a.png") for number in range(4)])
    made = []
    for limit in (1 << 24, 400):
        examples = load_splits(DataSpec(train=(source,), validation=(source,), max_pixels=limit)).train
        assert examples[0].images[0].size == ((90, 90) if limit > 400 else (20, 20))
        made.append(encode(examples, tiny.llava_processor(), cache_folder=tmp_path))
    assert made[0].digest != made[1].digest
    assert check_data([source], max_pixels=400).notes == {
        "pictures of more than 400 pixels (`max_pixels`): scaled down": 4
    }


WAVE = np.sin(np.linspace(0, 20, 400))


@pytest.mark.parametrize(
    ("samples", "bits"),
    [
        ((WAVE * 32767).astype(np.int16), 16),
        ((WAVE * 32767).astype(int).tolist(), 16),
        ((WAVE * 2**31 * 0.999).astype(np.int32), 32),
        ((WAVE * 2**31 * 0.999).astype(np.int64).tolist(), 32),
        ((WAVE * 127).astype(np.int8), 8),
        ((WAVE * 127 + 128).astype(np.uint8), 8),
        ((WAVE * 32767).round().tolist(), 16),
    ],
)
def test_integer_samples_are_scaled_by_the_range_of_their_type(samples, bits):
    wav, notes = encode_wav({"array": samples, "sampling_rate": 8000})
    assert np.abs(Sound(wav).open(8000) - WAVE).max() < 0.02
    assert notes == (f"sounds of integers: scaled by the range of {bits} bits",)


def test_samples_between_minus_one_and_one_stay():
    wav, notes = encode_wav({"array": (1.2 * WAVE).tolist(), "sampling_rate": 8000})
    assert np.allclose(Sound(wav).open(8000), 1.2 * WAVE) and notes == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"array": [0.0, 0.1], "sampling_rate": 0}, "from 1 to"),
        ({"array": [0.0, 0.1], "sampling_rate": "fast"}, "from 1 to"),
        ({"array": [0.0, 0.1], "sampling_rate": float("nan")}, "from 1 to"),
        ({"array": [[0.0] * 100] * 80, "sampling_rate": 8000}, "at most 64 channels"),
        ({"array": [0, 2**40], "sampling_rate": 8000}, "integers of 8 to 32 bits"),
        ({"array": ["a"], "sampling_rate": 8000}, "must hold numbers"),
        ({"path": "a.wav", "start": 0.2, "end": 0.4}, r"`start` \(float 0.2\) is not followed"),
        ({"path": "a.wav", "offset": 1}, "`offset`"),
    ],
)
def test_a_sound_that_cannot_be_read_as_it_is_meant_is_refused(value, reason, tmp_path):
    tone(tmp_path / "a.wav")
    with pytest.raises(DataError, match=reason):
        MediaCache(tmp_path).get_sound(value)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.stack([WAVE, -WAVE], axis=1), "silent once its 2 channels are averaged"),
        (WAVE * 20000 + 0.5, "must have samples from -1 to 1"),
        (np.array([0.0, np.inf, 0.1]), "not finite"),
    ],
)
def test_a_sound_that_would_be_lost_is_refused(samples, reason):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(DataError, match=reason):
        Sound(buffer.getvalue()).open(8000)


def test_averaged_channels_are_said(tmp_path):
    assert Sound(tone(tmp_path / "a.wav", channels=2)).notes == ("sounds with several channels: averaged",)
    assert Sound(tone(tmp_path / "b.wav")).notes == ()


def test_silence_stays_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2)), 8000)
    assert not Sound(tmp_path / "a.wav").open(8000).any()


@pytest.mark.parametrize("value", ["~nobody-here/x.png", "a\0b.png", "x" * 5000, "/9j/" + "A" * 400])
def test_a_path_that_cannot_be_one_is_a_reason(value, tmp_path):
    with pytest.raises(DataError, match="image"):
        found = MediaCache(tmp_path).get_picture(value)
        raise DataError(str(found.problem))


def test_bare_base64_is_read(folder):
    import base64

    text = base64.encodebytes((folder / "0.png").read_bytes()).decode()
    assert np.array_equal(np.asarray(MediaCache(folder).get_picture(text).open()), np.asarray(picture(0)))


def test_what_is_not_read_of_an_object_is_noted(folder):
    notes = []
    MediaCache(folder).get_picture({"url": "0.png", "detail": "high", "format": "png"}, notes)
    assert notes == ["`detail` of an image: not read"]
