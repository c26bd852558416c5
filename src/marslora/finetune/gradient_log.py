"""Record the objectives' gradients in a file, which the report draws, and summarise them for Trainer's logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from marslora.core.errors import MarsloraError
from marslora.core.files import write_text
from marslora.core.runs import BlockGradient


class GradientLog:
    """Writes one line of JSON for each step and block.

    A continued run replaces the lines that the killed run wrote after its checkpoint. Only the process with ``writes``
    writes the file; the others only summarise.
    """

    def __init__(self, path: Path, writes: bool):
        self.path, self.writes = path, writes
        self._began = False
        self._seen: list[BlockGradient] = []

    def add(self, step: int, notes: Sequence[BlockGradient]) -> None:
        """Record the notes of step ``step`` (from 0)."""
        if self.writes and not self._began:
            write_text(
                self.path, "".join(f"{note.model_dump_json()}\n" for note in _read_earlier_steps(self.path, step))
            )
        self._began = True
        numbered = [note.model_copy(update={"step": step}) for note in notes]
        self._seen += numbered
        if self.writes:
            with self.path.open("a") as file:
                file.writelines(f"{note.model_dump_json()}\n" for note in numbered)

    def summary(self) -> dict[str, float]:
        """Mean cosine, mean norms and the share of each case in every block since the last call, as tracker metrics."""
        metrics: dict[str, float] = {}
        for block in dict.fromkeys(note.block for note in self._seen):
            notes = [note for note in self._seen if note.block == block]
            cosines = [note.cosine for note in notes if note.cosine is not None]
            if cosines:
                metrics[f"gradients/{block}/cosine"] = sum(cosines) / len(cosines)
            for name in dict.fromkeys(name for note in notes for name in note.objectives):
                norms = [dict(zip(note.objectives, note.norms, strict=True)).get(name, 0.0) for note in notes]
                metrics[f"gradients/{block}/norm_{name}"] = sum(norms) / len(norms)
            for case, times in Counter(note.case for note in notes).items():
                metrics[f"gradients/{block}/{case.replace(' ', '_')}"] = times / len(notes)
        self._seen = []
        return metrics


def _read_earlier_steps(path: Path, step: int) -> list[BlockGradient]:
    """The notes in ``path`` about steps before ``step``; a line that was cut off is ignored."""
    if not path.exists():
        return []
    notes = []
    for line in path.read_text().splitlines():
        try:
            note = BlockGradient.model_validate_json(line)
        except (ValueError, MarsloraError):
            continue
        if note.step < step:
            notes.append(note)
    return notes
