"""Videos: where rows name them, which frames the model sees, and which of them are bad rows."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import numpy as np
import pytest

from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data._frames import choose_frames
from marslora.data.check import check_data
from marslora.data.splits import load_splits
from marslora.data.videos import Video, VideoHeader, spread_frames
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import film, picture, tone, write_lines

pytest.importorskip("av", reason="videos are decoded by PyAV: pip install 'marslora[video]'")


def conversation(content, **columns):
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}], **columns}


def brightness(frames):
    """Of the left half of every frame."""
    return frames[:, :, : frames.shape[2] // 2].mean(axis=(1, 2, 3))


FORMS = {
    "column": conversation("<video>what ?", videos=["film.mp4"]),
    "one in a column": conversation("<video>what ?", video="film.mp4"),
    "no tag": conversation("what ?", videos=["film.mp4"]),
    "part with the column": conversation([{"type": "video"}, {"type": "text", "text": "what ?"}], videos=["film.mp4"]),
    "Qwen's part": conversation(
        [{"type": "video", "video": "film.mp4", "fps": 2.0}, {"type": "text", "text": "what ?"}]
    ),
    "a URL of a file": conversation([{"type": "video_url", "video_url": {"url": "film.mp4"}}, "what ?"]),
    "Qwen's tokens": conversation("<|vision_start|><|video_pad|><|vision_end|>what ?", videos=["film.mp4"]),
    "numbered": conversation("<video1>what ?", videos=["film.mp4"]),
    "caption": {"video": "film.mp4", "text": "red"},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_row_shows_its_video_where_it_stands(tmp_path, name):
    film(tmp_path / "film.mp4")
    source = write_lines(tmp_path / "rows.jsonl", [FORMS[name]])
    (example,) = load_splits(DataSpec(train=(source,), validation=(source,))).train
    assert [video.source.name for video in example.videos] == ["film.mp4"] and example.media == example.videos
    assert example.messages[0]["content"][0] == {"type": "video"}
    assert example.notes == (("`fps` of a video: not read",) if name == "Qwen's part" else ())


def test_bytes_in_a_row_are_a_video(tmp_path):
    data = film(tmp_path / "film.mp4").read_bytes()
    text = base64.b64encode(data).decode()
    for value in (f"data:video/mp4;base64,{text}", text, {"base64": text}):
        source = write_lines(tmp_path / "rows.jsonl", [conversation("<video>what ?", videos=[value])])
        (example,) = load_splits(DataSpec(train=(source,), validation=(source,))).train
        assert example.videos[0].open().shape == (12, 48, 64, 3)
        assert example.videos[0].digest == Video(tmp_path / "film.mp4").digest


REFUSED = {
    "more tags than videos": (conversation("<video><video>what ?", videos=["film.mp4"]), "more video placeholders"),
    "frames": (conversation([{"type": "video", "video": ["a.png", "b.png"]}]), "a list of 2 frames"),
    "a cut": (conversation([{"type": "video", "video": "film.mp4", "video_start": 1}]), "`video_start` (int 1)"),
    "network": (conversation("<video>?", videos=["https://x.org/a.mp4"]), "is on the network"),
    "missing": (conversation("<video>?", videos=["none.mp4"]), "does not exist"),
    "text": (conversation("<video>?", videos=["text.mp4"]), "is not a video that PyAV can open"),
    "cut off": (conversation("<video>?", videos=["cut.mp4"]), "is not a video that PyAV can open"),
    "cut off stream": (conversation("<video>?", videos=["cut.avi"]), "is cut off: its header states 60 frames, and "),
    "one picture": (conversation("<video>?", videos=["one.mp4"]), "must have at least 2 frames, found 1"),
    "grey": (conversation("<video>?", videos=["blank.mp4"]), "shows nothing: all its frames are of one colour"),
    "sound": (conversation("<video>?", videos=["tone.wav"]), "it has no pictures"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_video_that_cannot_be_shown_is_a_bad_row_with_its_reason(folder, name):
    row, reason = REFUSED[name]
    film(folder / "film.mp4")
    film(folder / "one.mp4", num_frames=1)
    film(folder / "blank.mp4", blank=True)
    tone(folder / "tone.wav")
    (folder / "text.mp4").write_text("no video")
    (folder / "cut.mp4").write_bytes((folder / "film.mp4").read_bytes()[:700])
    whole = film(folder / "whole.avi", num_frames=60).read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    (bad,) = check_data([write_lines(folder / "rows.jsonl", [row])]).bad
    assert reason in bad.reason and "\n" not in bad.reason


def test_the_check_counts_seconds_and_frames(tmp_path):
    film(tmp_path / "a.mp4", 12, 6)
    film(tmp_path / "b.avi", 30, 10)
    rows = [conversation("<video>?", videos=["a.mp4"]), conversation("<video><video>?", videos=["b.avi", "a.mp4"])]
    report = check_data([write_lines(tmp_path / "rows.jsonl", rows)])
    assert (report.num_bad, report.num_videos, report.num_frames) == (0, 3, 54)
    assert report.video_seconds == pytest.approx(7.0) and report.audio_seconds == 0


def test_frames_are_those_of_their_numbers_and_larger_ones_are_scaled_down(tmp_path):
    path = film(tmp_path / "film.mp4", 40, 10)
    everything = Video(path).open()
    assert everything.shape == (40, 48, 64, 3) and (np.diff(brightness(everything)) > 1).all()
    chosen = Video(path).open([0, 7, 7, 39])
    assert np.array_equal(chosen, everything[[0, 7, 7, 39]])
    small = Video(path, max_pixels=1000)
    assert small.header.size == (36, 27) and small.open([3]).shape == (1, 27, 36, 3)
    assert small.notes == ("videos of more than 1,000 pixels a frame (`max_pixels`): scaled down",)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov"])
def test_frames_are_counted_also_where_no_header_states_them(tmp_path, ending):
    video = Video(film(tmp_path / f"film.{ending}", 25, 5))
    assert video.problem is None and video.header.num_frames == 25 and video.header.seconds == 5
    assert len(video.open()) == 25


def test_a_header_that_states_one_frame_too_many_is_no_cut(tmp_path, monkeypatch):
    video = Video(film(tmp_path / "film.mp4", 40, 10))
    last = video.open([39])
    monkeypatch.setattr(Video, "header", VideoHeader(41, 10.0, (64, 48)))
    assert np.array_equal(video.open([2, 40])[1:], last)
    monkeypatch.setattr(Video, "header", VideoHeader(50, 10.0, (64, 48)))
    with pytest.raises(DataError, match="states 50 frames, and 40 can be decoded"):
        video.open([2, 49])


@pytest.mark.parametrize("count", [1, 2, 5, 39, 40, 100])
def test_frames_are_spread_from_the_first_to_the_last(count):
    shown = spread_frames(range(40), count)
    assert len(shown) == min(count, 40) and shown == sorted(set(shown)) and shown[0] == 0
    assert count == 1 or shown[-1] == 39


def chooser(**settings):
    """A processor whose video processor takes every second frame, and notes what it is told."""
    told = []

    def sample_frames(metadata, num_frames=None, **rest):
        told.append((metadata.total_num_frames, metadata.fps, num_frames, sorted(rest)))
        if num_frames is not None and num_frames > metadata.total_num_frames:
            raise ValueError("too short")
        return np.arange(0, metadata.total_num_frames, 2)

    annotations = {"num_frames": int, "size": dict, "device": str, "do_sample_frames": bool}
    kind = SimpleNamespace(__annotations__=annotations)
    found = SimpleNamespace(
        valid_kwargs=kind, sample_frames=sample_frames, do_sample_frames=True, size=None, **settings
    )
    return SimpleNamespace(video_processor=found), told


def test_the_processor_chooses_frames_and_the_cap_thins_them_out(tmp_path):
    path = film(tmp_path / "film.mp4", 40, 10)
    processor, told = chooser(num_frames=3)
    chosen = choose_frames(Video(path), processor)
    assert told == [(40, 10.0, 3, ["size"])]
    assert list(chosen.metadata.frames_indices) == list(range(0, 40, 2)) and len(chosen.frames_FHWC) == 20
    assert chosen.notes == () and chosen.metadata.fps == 10 and chosen.metadata.duration == 4
    cut = choose_frames(Video(path, max_frames=4), processor)
    assert list(cut.metadata.frames_indices) == [0, 12, 26, 38]
    assert cut.notes == ("videos of more than 4 chosen frames (`max_frames`): thinned out",)
    processor.video_processor.do_sample_frames = False
    assert list(choose_frames(Video(path, max_frames=4), processor).metadata.frames_indices) == [0, 13, 26, 39]


def test_a_processor_that_refuses_a_video_or_takes_none_is_the_reason(tmp_path):
    path = film(tmp_path / "film.mp4", 4)
    with pytest.raises(DataError, match=r"cannot choose frames of a video of 4 frames \(too short\)"):
        choose_frames(Video(path), chooser(num_frames=8)[0])
    source = write_lines(tmp_path / "rows.jsonl", [conversation("<video>?", videos=["film.mp4"])])
    (bad,) = check_data([source], processor=tiny.llava_processor).bad
    assert "LlavaProcessor takes none" in bad.reason


def test_without_pyav_the_reason_names_the_extra(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert "pip install 'marslora[video]'" in Video(path).problem


def test_a_folder_of_videos_with_metadata_is_read(folder):
    film(folder / "film.mp4")
    picture(1).save(folder / "still.png")
    write_lines(folder / "metadata.jsonl", [{"file_name": "film.mp4", "text": "moving"}])
    report = check_data([str(folder)])
    assert report.num_bad == 0 and report.num_videos == 1
