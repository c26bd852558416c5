"""Events in a file: what is read is what was written, whole and once."""

from marslora.core.errors import DataError, StudyError
from marslora.core.runs import Cost, MemberResult, Observation, ProgressEvent
from marslora.executors._events import EventFile

POINT = Observation(member="m", examples=16, metric="train_loss", value=0.1 + 0.2)
ENDED = MemberResult(member="m", status="complete", examples=16, cost=Cost(seconds=1 / 3, flops=1e300))


def test_what_is_read_is_what_was_written(tmp_path):
    writer, reader = EventFile(tmp_path / "events"), EventFile(tmp_path / "events")
    assert list(reader.read()) == []
    writer.write(POINT)
    writer.write(POINT.model_copy(update={"value": float("inf")}))
    assert list(reader.read()) == [POINT, POINT.model_copy(update={"value": float("inf")})]
    assert list(reader.read()) == []
    for report in (ENDED, ProgressEvent(task="a\nb", done=1, total=2), None):
        writer.write(report)
    assert list(reader.read()) == [ENDED, ProgressEvent(task="a\nb", done=1, total=2), None]


def test_errors_come_back_as_they_are(tmp_path):
    file = EventFile(tmp_path / "events")
    file.write(DataError("row 3 is bad"))
    file.write(type("Unheard", (StudyError,), {})("what"))
    known, unheard = file.read()
    assert (type(known), str(known)) == (DataError, "row 3 is bad")
    assert (type(unheard), str(unheard)) == (StudyError, "Unheard: what")


def test_a_line_that_was_not_finished_is_left_out(tmp_path):
    path = tmp_path / "events"
    writer, reader = EventFile(path), EventFile(path)
    writer.write(POINT)
    writer.write(ENDED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(reader.read()) == [POINT]
    path.write_bytes(whole)
    assert list(reader.read()) == [ENDED]
    path.write_bytes(whole[:-20])
    writer.write(POINT)  # by the process that continues the work of the one that was killed
    assert list(EventFile(path).read()) == [POINT, POINT]
