"""What is asked of a picture, and which answer is right."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from pictures import EMOJI, Picture

DESCRIBE = "Describe the picture."
WEIGHTS = {"art4apps": 2.0, "openclipart": 1.2, "game-icons": 0.4, **dict.fromkeys(EMOJI, 1.0)}
"""How often pictures of a source are shown: silhouettes less, cartoons, which are few, more."""


class Questions:
    """Draws examples: the index of a picture, a question, its answer."""

    def __init__(self, pictures: Sequence[Picture], seed: int = 0) -> None:
        self.pictures, self.seed = pictures, seed
        self.train = [index for index, picture in enumerate(pictures) if not picture.is_held]
        self.weights = [WEIGHTS[pictures[index].source] for index in self.train]
        self.alike: dict[str, list[str]] = defaultdict(list)
        for index in self.train:
            self.alike[self._find_group(pictures[index])].append(pictures[index].name)

    @staticmethod
    def _find_group(picture: Picture) -> str:
        return picture.kind or picture.source

    def draw(self, block: int, number: int) -> list[tuple[int, str, str]]:
        """The examples of a block: the same for every run of one seed."""
        rng = random.Random(f"{self.seed}-{block}")
        return [(i, *self._ask(self.pictures[i], rng)) for i in rng.choices(self.train, self.weights, k=number)]

    def _ask(self, picture: Picture, rng: random.Random) -> tuple[str, str]:
        chance = rng.random()
        if picture.keywords and chance < 0.25:
            return "List keywords.", picture.keywords
        if picture.kind and chance < 0.12:
            return "What kind of thing is it?", picture.kind
        if chance > 0.9:
            if rng.random() < 0.5:
                return f"Is it {picture.name}?", "yes"
            other = rng.choice(self.alike[self._find_group(picture)])
            if other != picture.name:
                return f"Is it {other}?", "no"
        return DESCRIBE, picture.name
