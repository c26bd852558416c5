"""Placeholders of pictures, sounds and videos inside text, as data sets and model families write them.

``<image>``, ``<audio>`` and ``<video>`` stand for the next of a row's pictures, sounds or videos. ``<image2>`` or
``<|image_2|>`` stands for the second. What a family's own template writes (``<|image_pad|>``, ``[IMG]``,
``<start_of_image>``) counts as ``<image>``. Any other tag of that look is refused by name, because it would be learned
as characters; where no placeholder says where a row's media belong, so is all that may have been meant as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from marslora.core.errors import DataError

_IMAGES = (
    r"<im_start><image><im_end>",
    r"<\|begin_of_image\|><\|image\|><\|end_of_image\|>",
    r"(?:<\|vision_start\|>)?<\|image_pad\|>(?:<\|vision_end\|>)?",
    r"(?:<img>)?<(?:IMG_CONTEXT|ImageHere)>(?:</img>)?",
    r"\(<image>\./</image>\)",
    r"<image>(?:\./)?</image>",
    r"(?:<\|image_start\|>)?<\|image\|>(?:<\|image_end\|>)?",
    r"\[IMG\](?:\[IMG_END\])?",
    r"<start_of_image>(?:<image_soft_token>)*(?:<end_of_image>)?",
    r"<(?:image_soft_token|image_placeholder|image_token|image\s?/)>",
    r"<image>",
)
"""What stands for the next picture, in patterns."""
_SOUNDS = (
    r"(?:<\|audio_bos\|>)?<\|AUDIO\|>(?:<\|audio_eos\|>)?",
    r"<\|audio\|>",
    r"<start_of_audio>(?:<audio_soft_token>)*(?:<end_of_audio>)?",
    r"<(?:audio_soft_token|SpeechHere|sound|audio\s?/)>",
    r"<audio>(?!\s*[^\s<>]{1,200}</audio>)",
)
"""What stands for the next sound."""
_VIDEOS = (
    r"(?:<\|vision_start\|>)?<\|video_pad\|>(?:<\|vision_end\|>)?",
    r"<\|video\|>",
    r"<(?:VideoHere|video\s?/)>",
    r"<video>(?!\s*[^\s<>]{1,200}</video>)",
)
"""What stands for the next video."""
_STRANGE = (
    r"<img>[^<>\n]{1,300}</img>",
    r"<audio>\s*[^\s<>]{1,200}</audio>",
    r"</?im_(?:start|end)>",
    r"<\|(?:begin|end)_of_(?:image|video|audio)\|>",
    r"\[IMG_(?:BREAK|END)\]",
    r"<\|?/?(?:img|images?|pictures?|videos?|vision|audios?)(?:[\w:./ -]{0,40})\|?>",
    r"\[(?:img|image|picture|audio|video)[ _-]?\d{0,3}\]",
    r"\{\{?\s*(?:img|image|picture|audio|video)[ _-]?\d{0,3}\s*\}?\}",
)
"""What looks like a placeholder and is none that is known: paths between tags, ends without a beginning."""
_WRAPPED = rf"(?P<wrap>[$%#@~^*]|__)(?:{'|'.join((*_IMAGES, *_SOUNDS, *_VIDEOS))})(?P=wrap)"
"""A placeholder between two marks, which would stay as characters around it: ``$<image>$``."""
_CONTROLS = re.compile(
    r"<\|(?:endofchunk|endoftext|endofprompt|im_(?:start|end|sep)|(?:begin|end)_of_text|eot(?:_id)?|eom(?:_id)?"
    r"|(?:start|end)_header_id|(?:start|end)_of_(?:role|turn)|(?:bos|eos|pad)(?:_token)?|end|user|assistant|system)\|>"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos)>|\[/?INST\]|<</?SYS>>|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>"
    r"|\A\s*<s>(?![\s\S]*</s>)|\A(?![\s\S]*<s>)[\s\S]*(?P<end></s>)\s*\Z"
)
"""Marks with which models and templates begin and end turns: a text that has one was already put into a template."""
_WORD = r"(?<![a-z])(?:imgs?|images?|pictures?|pics?|photos?|videos?|audios?|speech|sounds?|media|frames?)(?![a-z])"
_OPEN, _CLOSE = r"(?:\\?<|＜|&lt;)", r"(?:\\?>|＞|&gt;)"
_SUSPECTS = re.compile(
    "|".join(
        (
            rf"{_OPEN}\s?[\w|/.:#-]{{0,40}}?{_WORD}[\w|/.:#-]{{0,40}}\s?{_CLOSE}",
            rf"{_OPEN}(?:img|image|video|audio)\s[^<>\n]{{1,300}}{_CLOSE}",
            r"!\[[^\[\]\n]{0,200}\]\([^()\n]{1,300}\)",
            rf"\[\s*{_WORD}[^\[\]\n]{{0,80}}\]",
            rf"\{{\s*{_WORD}[ _-]?\d{{0,3}}\s*\}}",
            rf"(?P<mark>[%$#@]|__){_WORD}[ _-]?\d{{0,3}}(?P=mark)",
        )
    ),
    re.IGNORECASE,
)
"""What may have been meant as a placeholder where a row has no other: any tag of that word, Markdown's pictures."""
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Characters without width, which hide a placeholder from a search."""
_NUMBERED = r"<\|?(?P<medium>image|img|audio|video)[ _-]?(?P<number>\d{1,3})\|?>"
_PATTERN = re.compile(
    f"(?P<wrapped>{_WRAPPED})|{_NUMBERED}|(?P<image>{'|'.join(_IMAGES)})|(?P<audio>{'|'.join(_SOUNDS)})|(?P<video>{'|'.join(_VIDEOS)})"
    f"|(?P<strange>{'|'.join(_STRANGE)})",
    re.IGNORECASE,
)
_IN_ANSWERS = re.compile(
    f"(?P<wrapped>{_WRAPPED})|(?P<image><image>)|(?P<audio><audio>)|(?P<video>(?!))|(?P<medium>(?P<number>(?P<strange>(?!))))"
)
"""In an answer, only these two: models are taught to write HTML, which has tags for pictures and videos."""
_ALWAYS_MEANT = re.compile(r"<\|")
"""Strange tags that are refused in any row; others may be HTML where a row has no picture and no sound."""


@dataclass(frozen=True)
class Tag:
    """A placeholder in a text."""

    medium: str
    """``image``, ``audio`` or ``video``."""
    number: int | None
    """Which of the row's it stands for, as it is written; None for the next one."""
    text: str


def split_tags(text: str, *, is_answer: bool, has_media: bool) -> list[str | Tag]:
    """The text cut at its placeholders. Raises `DataError` for a tag that looks like one and cannot be read."""
    if "<" not in text and "[" not in text and "{" not in text:
        return [text]
    if control := _CONTROLS.search(text):
        mark = (control["end"] or control[0]).strip()
        raise DataError(
            f"the text has `{mark}`, with which models mark turns, and the model's own template adds its marks again: "
            "remove it, and write each turn as a message of its own"
        )
    pieces: list[str | Tag] = []
    at = 0
    for match in (_IN_ANSWERS if is_answer else _PATTERN).finditer(text):
        if match["strange"] or match["wrapped"]:
            if match["wrapped"] or has_media or _ALWAYS_MEANT.match(match[0]):
                raise _explain_tag(match[0])
            continue
        pieces.append(text[at : match.start()])
        if match["number"]:
            medium = match["medium"].lower().replace("img", "image")
            pieces.append(Tag(medium, int(match["number"]), match[0]))
        else:
            pieces.append(Tag(next(kind for kind in ("image", "audio", "video") if match[kind]), None, match[0]))
        at = match.end()
    pieces.append(text[at:])
    return pieces


def check_unmarked(text: str) -> None:
    """Raise `DataError` if the text, of a row whose media no placeholder has taken, may have been meant to have one."""
    if match := _SUSPECTS.search(text if text.isascii() else _INVISIBLE.sub("", text)):
        raise DataError(
            f"the text has `{match[0][:60]}`, which may have been meant as the place of a picture, sound or video, and "
            "no placeholder says where the row's own belong: write `<image>`, `<audio>` or `<video>` there; the rest "
            "of the text then stays as it is"
        )


def count_from_zero(text: str) -> bool:
    """Whether a row's numbered placeholders, all in ``text``, begin with 0 (``<image_0>``) instead of 1."""
    return any(match["number"] and int(match["number"]) == 0 for match in _PATTERN.finditer(text))


def _explain_tag(tag: str) -> DataError:
    return DataError(
        f"the text has `{tag[:60]}`, which looks like a placeholder and is none that is known: write "
        "`<image>`, `<audio>` or `<video>` where a picture, sound or video belongs, and name its file in the row. If "
        "the text is about such tags, put a space into them: `< image >`"
    )
