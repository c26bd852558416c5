"""Where the rows of a study are, and how they are split."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from marslora.core.options import INPUT, Option, OptionRecord
from marslora.core.seeds import LARGEST_SEED
from marslora.core.training import read_files

MAX_PIXELS = 1 << 24
"""Pixels of a picture at most by default: 4096 x 4096, more than any processor reads and 50 MB decoded."""
MAX_FRAMES = 64
"""Frames of a video at most by default: a long video would fill the model's context."""
Files = Annotated[tuple[str, ...], BeforeValidator(read_files)]
"""One file or several."""


class DataSpec(OptionRecord):
    """Where the examples are and how they are split."""

    train: Annotated[
        Files,
        Option(
            INPUT,
            short="-d",
            metavar="ROWS",
            is_repeatable=True,
            type=Any,
            hint="Give a file of rows, or try `marslora demo` or `marslora compare --demo both`.",
            other_names=("data", "dataset", "dataset_name", "train_file", "train_dataset", "data_path"),
        ),
    ]
    """Training rows: a .jsonl, .json, .csv, .tsv, .parquet or .tar (WebDataset) file, a folder of `datasets`,
    of such files, or of pictures with a metadata file, FOLDER#NAME of a LLaMA-Factory dataset_info.json, or
    owner/name@revision:subset#split of a data set on the hub. In Python also a sequence of rows."""
    validation: Annotated[
        Files,
        Option(
            INPUT,
            metavar="ROWS",
            is_repeatable=True,
            type=Any,
            other_names=("val", "valid", "eval", "eval_dataset", "val_dataset", "validation_file"),
        ),
    ] = ()
    """Held-out rows for every decision. Default: a share of the training rows is split off."""
    test: Annotated[Files, Option(INPUT, metavar="ROWS", is_repeatable=True, type=Any)] = ()
    """Rows that are evaluated once, at the very end. Default: none."""
    validation_share: Annotated[
        float,
        Field(gt=0, lt=1),
        Option(INPUT, other_names=("val_size", "val_set_size", "validation_split", "split_dataset_ratio")),
    ] = 0.1
    """Share of the training rows that is held out if no validation rows are given."""
    image_folder: Annotated[str | None, Option(INPUT, metavar="FOLDER")] = None
    """Folder that relative image paths start from. Default: the folder of the data file."""
    allow_outside: Annotated[bool, Option(INPUT)] = False
    """Read pictures and sounds whose path leaves that folder: absolute, with .. or ~, or by a link. Only for rows that
    you trust: an answer could show what is in such a file."""
    max_examples: Annotated[
        int | None, Field(gt=0), Option(INPUT, other_names=("max_samples", "max_train_samples"))
    ] = None
    """Use at most this many training rows, drawn with the data seed. Default: all."""
    max_validation: Annotated[int, Field(gt=0), Option(INPUT)] = 256
    """Use at most this many validation rows for each measurement."""
    max_length: Annotated[
        int | None,
        Field(gt=0),
        Option(INPUT, other_names=("cutoff_len", "sequence_len", "max_seq_length", "model_max_length")),
    ] = None
    """Refuse rows with more tokens. Rows are never cut, since a cut could remove image tokens. Default: no limit."""
    max_pixels: Annotated[int, Field(gt=0), Option(INPUT)] = MAX_PIXELS
    """Scale larger pictures down to this many pixels before the processor sees them; the report says how many."""
    max_frames: Annotated[int, Field(gt=0), Option(INPUT)] = MAX_FRAMES
    """Show at most this many frames of a video, evenly spread over those that the processor chooses."""
    max_bad_share: Annotated[float, Field(ge=0, le=1), Option(INPUT)] = 0.01
    """Stop if a larger share of the rows cannot be used; a smaller share is skipped and counted."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED), Option(INPUT, name="data_seed")] = 0
    """Seed of the split and of the choice of rows."""

    def without_place(self) -> DataSpec:
        """The same without saying where the rows are; what they are, only reading them tells."""
        files = {"train": ("",), "validation": (), "test": (), "image_folder": None, "allow_outside": False}
        return self.model_copy(update=files)
