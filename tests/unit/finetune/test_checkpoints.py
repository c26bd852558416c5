from marslora.finetune.checkpoints import FinalRunState, find_newest, mark_complete, remove_broken

PROGRESS = FinalRunState(
    spec_digest="mine", started_at_examples=0, base_validation_loss=2.0, base_validation_accuracy=0.1
)


def checkpoint(folder, step, progress=PROGRESS):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text("{}")
    if progress is not None:
        mark_complete(path, progress)
    return path


def test_the_newest_is_the_one_with_most_steps(tmp_path):
    checkpoint(tmp_path, 9)
    assert find_newest(tmp_path, "mine") is not None
    expected = checkpoint(tmp_path, 10, PROGRESS.add_validation(80, 1.5))
    path, progress = find_newest(tmp_path, "mine")
    assert path == expected
    assert (progress.examples, progress.validation_curve) == ((80,), (1.5,))


def test_half_written_and_foreign_checkpoints_are_skipped(tmp_path):
    whole = checkpoint(tmp_path, 3)
    checkpoint(tmp_path, 5, None)
    checkpoint(tmp_path, 6, PROGRESS.model_copy(update={"spec_digest": "other"}))
    torn = checkpoint(tmp_path, 7)
    (torn / "progress.json").write_text('{"spec_digest": "mi')
    assert find_newest(tmp_path, "mine")[0] == whole
    remove_broken(tmp_path, "mine")
    assert list(tmp_path.iterdir()) == [whole]


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert find_newest(tmp_path / "nowhere", "mine") is None
