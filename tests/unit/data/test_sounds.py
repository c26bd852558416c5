"""Sounds are checked by their header, resampled for the processor, and reach the model with their masks."""

from __future__ import annotations

import io
import time

import datasets
import numpy as np
import pytest
import soundfile
import torch
import transformers

from marslora.core.errors import DataError
from marslora.core.labels import IGNORED
from marslora.core.spec import DataSpec
from marslora.data._example import to_example
from marslora.data._media_cache import MediaCache
from marslora.data.encode import encode
from marslora.data.sounds import Sound, encode_wav
from marslora.data.splits import load_splits
from tests.helpers import tiny_processors as tiny
from tests.helpers._tiny_audio import WHISPER_TOWER
from tests.helpers._tiny_vision import text
from tests.unit.data.conftest import tone


def loudest_hertz(samples_T: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples_T))) * rate / len(samples_T))


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (16000, 16000), (48000, 8000)])
def test_a_tone_stays_the_tone_at_any_rate(tmp_path, rate, wanted):
    sound = Sound(tone(tmp_path / "a.wav", seconds=1, frequency=440, rate=rate, channels=2))
    samples_T = sound.open(wanted)
    assert samples_T.shape == (wanted,) and samples_T.dtype == np.float32
    assert abs(loudest_hertz(samples_T, wanted) - 440) < 2
    assert abs(np.abs(samples_T[wanted // 4 : wanted // 2]).max() - 0.5) < 0.02


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_common_formats_are_read(tmp_path, ending):
    sound = Sound(tone(tmp_path / f"a.{ending}", seconds=1, rate=16000))
    assert sound.problem is None and abs(sound.seconds - 1) < 0.1
    assert abs(loudest_hertz(sound.open(16000), 16000) - 440) < 2


def test_equal_content_has_an_equal_digest_and_a_different_middle_another(tmp_path):
    samples_T = np.zeros(200_000)
    soundfile.write(tmp_path / "a.wav", samples_T, 16000)
    samples_T[100_000] = 0.5
    soundfile.write(tmp_path / "b.wav", samples_T, 16000)
    data = (tmp_path / "a.wav").read_bytes()
    assert Sound(tmp_path / "a.wav").digest == Sound(data).digest != Sound(tmp_path / "b.wav").digest


def test_a_cut_file_is_found_by_its_header_and_a_stream_is_not_one(tmp_path):
    data = bytearray(tone(tmp_path / "a.wav").read_bytes())
    assert "is cut off" in str(Sound(bytes(data[:-100])).problem)
    data[4:8] = b"\xff\xff\xff\xff"
    assert Sound(bytes(data)).problem is None


def test_a_good_header_over_missing_samples_is_found_when_it_is_opened():
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(size=80_000) / 10, 8000, format="FLAC")
    data = buffer.getvalue()
    sound = Sound(data[: len(data) // 2])
    assert sound.problem is None
    with pytest.raises(DataError, match="cannot be decoded"):
        sound.open(8000)


def rows(folder) -> list[dict]:
    for n in range(4):
        tone(folder / f"{n}.wav", seconds=0.3 + 0.2 * n, frequency=300 + 100 * n, rate=(8000, 16000)[n % 2])
    heard = [{"prompt": f"<audio>what {n}?", "completion": f"it is {n}", "audio": f"{n}.wav"} for n in range(4)]
    return [*heard, {"prompt": "nothing?", "completion": "none"}, heard[1] | {"completion": "again"}]


def examples(folder, values) -> list:
    cache = MediaCache(folder)
    return [to_example(row, cache, "rows", number) for number, row in enumerate(values, start=1)]


def by_the_processor(processor, given, images=False):
    """What the processor makes of all rows at once."""
    pictures = {"images": [[image.open() for image in one.images] for one in given]} if images else {}
    return processor(
        text=[processor.apply_chat_template(list(one.messages), tokenize=False) for one in given],
        audio=[sound.open(16000) for one in given for sound in one.sounds],
        text_kwargs={"padding": True, "padding_side": "right"},
        return_tensors="pt",
        **pictures,
    )


def answers(encoded, processor) -> list[str]:
    labels = (encoded.texts["labels"][row] for row in range(len(encoded)))
    return [processor.tokenizer.decode(one[one != IGNORED]) for one in labels]


def test_batches_are_what_the_processor_itself_makes(folder):
    processor, given = tiny.qwen2_audio_processor(), examples(folder, rows(folder))
    encoded = encode(given, processor)
    got, expected = encoded.batch(range(6)), by_the_processor(processor, given)
    assert set(got) == {*expected, "labels"} and "feature_attention_mask" in got
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert answers(encoded, processor) == [
        f"{text}<|im_end|>" for text in ("it is 0", "it is 1", "it is 2", "it is 3", "none", "again")
    ]
    assert encoded.picture_of.tolist()[1] == encoded.picture_of.tolist()[5] and encoded.picture_of[4] == -1


def test_a_row_without_its_sounds_has_no_sound_in_its_batch(folder):
    encoded = encode(examples(folder, rows(folder)), tiny.qwen2_audio_processor())
    assert set(encoded.batch([4])) == {"input_ids", "attention_mask", "labels"}


def test_a_data_set_with_sounds_is_not_decoded_by_its_library(folder):
    heard = rows(folder)[:4]
    values = [one | {"audio": {"bytes": (folder / one["audio"]).read_bytes(), "path": None}} for one in heard]
    found = datasets.Dataset.from_list(values).cast_column("audio", datasets.Audio())
    found.save_to_disk(folder / "set")
    splits = load_splits(DataSpec(train=(str(folder / "set"),), validation_share=0.3))
    seconds = sorted(one.sounds[0].seconds for one in (*splits.train, *splits.validation))
    assert seconds == pytest.approx([0.3, 0.5, 0.7, 0.9])


def test_samples_in_memory_are_known_by_their_content_whenever_they_are_read():
    samples = {"array": [0.1, -0.2, 0.3], "sampling_rate": 8000}
    now, _ = encode_wav(samples)
    time.sleep(1.1)  # libsndfile notes the second in which it wrote a file
    assert encode_wav(samples) == (now, ())
    assert np.allclose(Sound(now).open(8000), samples["array"])


def test_a_long_sound_is_several_entries_of_one_row(folder):
    tone(folder / "long.wav", seconds=2.5)
    long = {"prompt": "<audio>what?", "completion": "long", "audio": "long.wav"}
    processor, given = tiny.audioflamingo3_processor(), examples(folder, [*rows(folder)[:4], long])
    encoded = encode(given, processor)
    got, expected = encoded.batch(range(5)), by_the_processor(processor, given)
    assert got["input_features"].shape[0] == 7
    assert all(torch.allclose(got[name], expected[name]) for name in ("input_features", "input_features_mask"))
    assert answers(encoded, processor)[-1] == "long<|im_end|>"


def test_pictures_and_sounds_meet_in_one_batch(folder):
    seen = [{"prompt": "<image>what?", "completion": "seen", "image": f"{n}.png"} for n in range(2)]
    both = {"prompt": "<audio> and <image>?", "completion": "both", "image": "0.png", "audio": "3.wav"}
    processor, given = tiny.gemma3n_processor(), examples(folder, [*rows(folder)[:2], *seen, both])
    encoded = encode(given, processor)
    got = encoded.batch(range(5))
    assert got["pixel_values"].shape == (3, 3, 28, 28)
    for at, row in enumerate((0, 1, 4)):
        alone = by_the_processor(processor, [given[row]], images=bool(given[row].images))
        length = alone["input_features"].shape[1]
        assert torch.allclose(got["input_features"][at, :length], alone["input_features"][0])
        assert torch.equal(got["input_features_mask"][at, :length], alone["input_features_mask"][0])
        assert not got["input_features_mask"][at, length:].any()
    assert got["input_features"].shape[0] == 3 and answers(encoded, processor)[-1] == "both<|im_end|>"


def test_a_processor_that_hears_nothing_refuses_the_row(folder):
    given = examples(folder, rows(folder))
    with pytest.raises(DataError, match=r"5 of 6 rows.*row has audio, and LlavaProcessor takes none"):
        encode(given, tiny.llava_processor())


def test_a_sound_that_breaks_off_is_refused_by_its_row(folder):
    given = examples(folder, rows(folder))
    data = (folder / "0.wav").read_bytes()
    (folder / "0.wav").write_bytes(data[:30])
    encoded = encode(given, tiny.qwen2_audio_processor(), max_bad_share=0.5)
    assert [bad.row for bad in encoded.skipped] == [1] and "cannot be decoded" in encoded.skipped[0].reason


def hearing_model(processor):
    config = transformers.Qwen2AudioConfig(
        audio_config={**WHISPER_TOWER, "max_source_positions": 20},
        text_config={**text("qwen2"), "vocab_size": len(processor.tokenizer)},
        audio_token_index=processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    return transformers.Qwen2AudioForConditionalGeneration(config).eval()


def test_a_model_learns_from_sounds(folder):
    processor = tiny.qwen2_audio_processor()
    model, encoded = hearing_model(processor), encode(examples(folder, rows(folder)), processor)
    losses = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        loss = model(**encoded.batch(range(6))).loss
        loss.backward()
        assert model.model.audio_tower.conv1.weight.grad.abs().sum() > 0
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_rows_of_a_batch_have_their_own_losses(folder):
    """Padding, masks and joined features change nothing: the batch's loss is the mean over its rows' answer tokens."""
    processor = tiny.qwen2_audio_processor()
    model, encoded = hearing_model(processor), encode(examples(folder, rows(folder)), processor)
    with torch.no_grad():
        together = float(model(**encoded.batch(range(6))).loss)
        alone = [float(model(**encoded.batch([row])).loss) for row in range(6)]
    assert np.average(alone, weights=encoded.num_answer_tokens) == pytest.approx(together, rel=1e-5)
