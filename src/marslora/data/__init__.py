"""Read conversations with pictures, sounds and videos, check them, split them, encode them, and put them into batches.

The steps of a row, and its name after each:

1. A **source** (a file, a folder, ``FOLDER#NAME``, ``memory:NAME``) is opened by a *reader* (`_readers`), which yields
   numbered rows: plain dicts of columns.
2. A *row format* (`_formats`) is chosen by the row's columns and turns it into turns: who says what.
3. `_example.to_example` makes an **Example**: turns in one form, every placeholder with its `Picture` or `Sound`. A row
   that cannot be used becomes a **BadRow** with its reason instead.
4. `splits.load_splits` returns **ExampleSplits**: the examples of training, validation and test. `check.check_data`
   reads the same rows, decodes every picture and returns a **CheckReport**; `repair` copies the good rows to a file.
5. `encode.encode` runs the model's processor over examples and returns **EncodedRows**: tokens, labels and pixels of
   one split, in memory maps on disk, named by their content. Only answers have labels.
6. `rows.load_encoded_splits` does steps 4 and 5 for a whole study and returns **EncodedSplits**, which also knows the
   order of rows (`order`): each step's rows, and the micro-batches of tensors that a model takes. Training code uses
   only what **BatchSource** defines.

Eight rows in memory, from dicts to a batch:

>>> from PIL import Image
>>> from transformers import AutoProcessor
>>> from marslora.core.spec import DataSpec
>>> from marslora.data.encode import encode
>>> from marslora.data.splits import load_splits, register_rows
>>> from marslora.demo.model import embedded_folder
>>> pictures = [Image.new("RGB", (48, 48), (20 * n, 0, 0)) for n in range(8)]
>>> rows = [{"image": pictures[n], "prompt": "How red is it?", "completion": f"{n} of 8"} for n in range(8)]
>>> splits = load_splits(DataSpec(train=(register_rows("reds", rows),), validation_share=0.25))
>>> splits.report.num_train, splits.report.num_validation, splits.report.num_bad
(6, 2, 0)
>>> encoded = encode(splits.train, AutoProcessor.from_pretrained(embedded_folder()))
>>> batch = encoded.batch([0, 1])
>>> sorted(batch), tuple(batch["pixel_values"].shape)
(['attention_mask', 'input_ids', 'labels', 'pixel_values'], (2, 3, 48, 48))

A row format is added by one file in ``_formats``, a file type by one file in ``_readers``. The docstrings of the two
packages say what such a file defines. Nothing else has to be edited.

Every `DataError` names the file, the row, what was expected, what was found and how to fix it.
"""
