"""A listener for tests."""

from marslora.core.runs import ProgressEvent


class RecordingListener:
    """Keeps everything it is told."""

    def __init__(self):
        self.stages: list[str] = []
        self.steps: list[ProgressEvent] = []
        self.notes: list[str] = []

    def stage(self, title):
        self.stages.append(title)

    def advance(self, step):
        self.steps.append(step)

    def note(self, text):
        self.notes.append(text)
