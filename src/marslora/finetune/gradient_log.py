"""What was seen of the objectives' gradients, in a file that the report draws and in Trainer's logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from marslora.core.errors import MarsloraError
from marslora.core.files import write_text
from marslora.core.runs import BlockGradient


class GradientLog:
    """One JSON object a line, step and block. What a killed run wrote after its checkpoint is written anew."""

    def __init__(self, path: Path, writes: bool):
        self.path, self.writes = path, writes
        self._began = False
        self._seen: list[BlockGradient] = []

    def add(self, step: int, notes: Sequence[BlockGradient]) -> None:
        """Write the notes of the step that comes after ``step`` others."""
        if self.writes and not self._began:
            write_text(self.path, "".join(f"{note.model_dump_json()}\n" for note in _before(self.path, step)))
        self._began = True
        found = [note.model_copy(update={"step": step}) for note in notes]
        self._seen += found
        if self.writes:
            with self.path.open("a") as file:
                file.writelines(f"{note.model_dump_json()}\n" for note in found)

    def summary(self) -> dict[str, float]:
        """Mean cosine, mean norms and the share of each case since the last call, by block, for trackers."""
        found: dict[str, float] = {}
        for block in dict.fromkeys(note.block for note in self._seen):
            notes = [note for note in self._seen if note.block == block]
            cosines = [note.cosine for note in notes if note.cosine is not None]
            if cosines:
                found[f"gradients/{block}/cosine"] = sum(cosines) / len(cosines)
            for name in dict.fromkeys(name for note in notes for name in note.objectives):
                norms = [dict(zip(note.objectives, note.norms, strict=True)).get(name, 0.0) for note in notes]
                found[f"gradients/{block}/norm_{name}"] = sum(norms) / len(norms)
            for case, times in Counter(note.case for note in notes).items():
                found[f"gradients/{block}/{case.replace(' ', '_')}"] = times / len(notes)
        self._seen = []
        return found


def _before(path: Path, step: int) -> list[BlockGradient]:
    """The whole lines of ``path`` about earlier steps."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            note = BlockGradient.model_validate_json(line)
        except (ValueError, MarsloraError):
            continue
        if note.step < step:
            found.append(note)
    return found
