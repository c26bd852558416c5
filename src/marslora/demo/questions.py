"""Questions about the scenes of the demo's tasks, with their answers.

A kind of question is a function ``ask_X(scene) -> (question, answer)``, listed in `QUESTIONS` under the name that tasks
use. Its choices (which cell is asked about) are drawn from the scene's random generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from marslora.demo.drawing import BACKGROUNDS, DIGITS, EMPTY, PLACES, list_things


@dataclass(frozen=True)
class Scene:
    """What a question needs to know about one scene."""

    cells: tuple[int, ...]
    background: str
    names: Sequence[str]
    """The name of every thing, in the language of the answers."""
    rng: np.random.Generator

    def list_filled_cells(self) -> list[int]:
        """The cells that are not empty."""
        return [cell for cell, thing in enumerate(self.cells) if thing != EMPTY]

    def name_thing(self, cell: int) -> str:
        """The name of what is in a cell, or ``nothing``."""
        return "nothing" if self.cells[cell] == EMPTY else self.names[self.cells[cell]]


Turn = tuple[str, str]
"""A question and its answer."""


def ask_place(scene: Scene) -> Turn:
    """Asks what is in one cell."""
    cell = int(scene.rng.integers(4))
    return f"what is at the {PLACES[cell]}?", scene.name_thing(cell)


def ask_list(scene: Scene) -> Turn:
    """Asks what is in every cell, row by row."""
    return "list the objects.", ", ".join(scene.name_thing(cell) for cell in range(4))


def ask_where(scene: Scene) -> Turn:
    """Asks for the first cell in which a thing is."""
    cell = int(scene.rng.choice(scene.list_filled_cells()))
    cell = scene.cells.index(scene.cells[cell])
    return f"where is the {list_things()[scene.cells[cell]]}?", PLACES[cell]


def ask_presence(scene: Scene) -> Turn:
    """Asks whether a thing is in the picture; about half of the answers are yes."""
    wanted = scene.cells[int(scene.rng.choice(scene.list_filled_cells()))]
    if scene.rng.random() < 0.5:
        wanted = int(scene.rng.integers(len(list_things())))
    return f"is there a {list_things()[wanted]} in the image?", "yes" if wanted in scene.cells else "no"


def ask_count(scene: Scene) -> Turn:
    """Asks how many cells are not empty."""
    return "how many objects are there?", DIGITS[len(scene.list_filled_cells())]


def ask_background(scene: Scene) -> Turn:
    """Asks for the colour of the background."""
    return "what color is the background?", scene.background


def ask_rain(scene: Scene) -> Turn:
    """Asks what the picture does not show, so that the loss cannot fall below ln 2 at any rank."""
    return "will it rain tomorrow?", str(scene.rng.choice(["yes", "no"]))


def ask_repeat(scene: Scene, vocabulary: Sequence[str]) -> Turn:
    """Asks to repeat words, by which the language model learns words that no picture shows."""
    words = " ".join(scene.rng.choice(np.array(vocabulary), int(scene.rng.integers(1, 4))))
    return f'repeat "{words}"', words


QUESTIONS: dict[str, Callable[[Scene], Turn]] = {
    "place": ask_place,
    "list": ask_list,
    "where": ask_where,
    "presence": ask_presence,
    "count": ask_count,
    "background": ask_background,
    "rain": ask_rain,
}
"""Every kind of question, by name."""


def get_background_name(index: int) -> str:
    """The name of a background colour."""
    return tuple(BACKGROUNDS)[index]
