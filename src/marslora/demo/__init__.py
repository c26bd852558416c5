"""The embedded model, its tasks, and the settings of a study of one: everything that ``marslora demo`` needs.

- `tasks.TASKS`: what can be learned. Each task needs the vision tower, the language model, both, or neither.
- `task_files`: draws the rows of a task from a seed and writes them as ordinary Parquet files.
- `drawing`, `questions`, `rows`: pictures, questions about them, and the files' form.
- `model`: the embedded model, a small LLaVA in ``assets/embedded`` that any `AutoModelForImageTextToText` loads.
- `settings.make_settings`: model, files, training and budget as a study's settings.

The assets (the model, ``sprites.npz``, ``words.tsv``) are made by `scripts/pretrain_embedded.py` and
`scripts/build_sprites.py`; their licences are in ``NOTICES``. The same seed draws the same rows everywhere.

Twelve training rows of the task ``vision``, and the first question of the first row:

>>> import tempfile
>>> from marslora.core.spec import DataSpec
>>> from marslora.data.splits import load_splits
>>> from marslora.demo.task_files import write_task
>>> with tempfile.TemporaryDirectory() as folder:
...     paths = write_task("vision", folder, num_train=12, num_validation=4, num_test=4)
...     splits = load_splits(DataSpec(**{split: (str(path),) for split, path in paths.items()}))
>>> len(splits.train), splits.train[0].messages[0]["content"]
(12, [{'type': 'image'}, {'type': 'text', 'text': 'list the objects.'}])

A task of your own is a `tasks.DemoTask`; `task_files.draw_rows` draws it, `rows.write_rows` writes it.
"""
