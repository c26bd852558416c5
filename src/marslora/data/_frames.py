"""The frames of a video that a processor chooses, and what it is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.video_utils import VideoMetadata

from marslora.core.errors import DataError
from marslora.data.videos import Video, VideoHeader, spread_frames

_NO_CHOICE = ("input_data_format", "do_convert_rgb", "do_sample_frames", "device", "video_metadata")
"""Settings of a video processor that it does not hand to the function that chooses frames."""


@dataclass(frozen=True)
class ChosenFrames:
    """The frames of a video that a model is to see."""

    frames_FHWC: NDArray[np.uint8]
    metadata: VideoMetadata
    """Of the whole video, with the numbers of these frames."""
    notes: tuple[str, ...] = ()


def choose_frames(video: Video, processor: Any) -> ChosenFrames:
    """The frames that the processor's own rule chooses, or all of them if it has none; at most ``max_frames``.

    Raises `DataError` if the processor takes no videos, refuses this one, or if it cannot be decoded.
    """
    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None:
        raise DataError(
            f"the row has a video, and {type(processor).__name__} takes none: remove the video, or choose a model that "
            "takes it"
        )
    header = video.header
    wanted = _ask_processor(video_processor, header) if video_processor.do_sample_frames else range(header.num_frames)
    shown = spread_frames(wanted, video.max_frames)
    metadata = _describe(header)
    metadata.frames_indices = shown
    cut = f"videos of more than {video.max_frames} chosen frames (`max_frames`): thinned out"
    return ChosenFrames(video.open(shown), metadata, (cut,) if len(shown) < len(wanted) else ())


def _describe(header: VideoHeader) -> VideoMetadata:
    width, height = header.size
    return VideoMetadata(header.num_frames, header.fps, width, height, header.seconds, "pyav")


def _ask_processor(video_processor: Any, header: VideoHeader) -> list[int]:
    """The increasing numbers of the frames that a video processor would choose itself."""
    names = [name for name in video_processor.valid_kwargs.__annotations__ if name not in _NO_CHOICE]
    settings = {name: getattr(video_processor, name, None) for name in names}
    try:
        chosen = np.asarray(video_processor.sample_frames(metadata=_describe(header), **settings))
    except MemoryError:
        raise
    except Exception as error:  # processors come with the model, some as code
        raise DataError(
            f"{type(video_processor).__name__} cannot choose frames of a video of {header.num_frames} frames "
            f"({error}): name a longer video, or remove the row"
        ) from None
    return [min(max(int(index), 0), header.num_frames - 1) for index in np.sort(chosen)]
