"""Train LoRA adapters with mLoRA 0.5.2's own trainer, for `packed_peer.py`: a line of JSON in, a line of JSON out.

Runs in an environment of mLoRA's own and imports nothing of marslora.
"""

import json
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import torch
from mlora import LLMModel, TrainConfig, lora_config_factory, train
from mlora.modules import InputData

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Job(TrainConfig):
    """One adapter's job on rows that are tokens already; the clock is read after each optimizer step."""

    def _dataload_fn(self, *_, **__):
        return [InputData(tokens=list(row)) for row in self.rows]

    def step(self):
        super().step()
        self.ends.append((time.perf_counter(), time.process_time()))


def job(model, index, case, ask):
    """Put adapter ``index`` into ``model`` with the weights given, and make its job."""
    rank, name, rows = ask["ranks"][index], f"m{index}", case["tokens"].flatten(0, 1).tolist()
    adapter = {"name": name, "task_name": "casual", "r": rank, "lora_alpha": ask["alpha_over_rank"] * rank}
    adapter |= {"lora_dropout": max(ask["dropout"], 1e-9), "target_modules": TARGETS}  # it refuses a dropout of 0
    model.init_adapter(lora_config_factory(adapter), case["weights"][index])
    made = Job(
        adapter_name=name,
        num_epochs=1,
        batch_size=case["tokens"].shape[1],
        micro_batch_size=case["tokens"].shape[1],
        learning_rate=ask["learning_rate"],
        weight_decay=0.0,
        group_by_length=True,  # their order is kept: all rows are equally long
    )
    made.rows, made.ends = rows, []
    return made


def run(model, ask):
    """Seconds (wall, CPU) of the steps after the first, and every step's losses."""
    case = torch.load(ask["case"])
    jobs = [job(model, index, case, ask) for index in range(len(ask["ranks"]))]
    losses, wall, cpu = {each.adapter_name: [] for each in jobs}, 0.0, 0.0

    def forward(inputs):
        if not ask["recompute"]:
            inputs.gradient_checkpoint_ = "none"
        outputs = LLMModel.forward(model, inputs)
        for output in outputs:
            losses[output.adapter_name].append(output.loss.detach())
        return outputs

    model.forward = forward
    tokenizer = SimpleNamespace(padding_side_="right", pad_id_=None, mask_from=lambda tokens: [1] * len(tokens))
    for group in [jobs] if ask["together"] else [[each] for each in jobs]:
        train(model, tokenizer, group, cutoff_len=case["tokens"].shape[2])
        (start, start_cpu), (end, end_cpu) = group[-1].ends[0], group[-1].ends[-1]
        wall, cpu = wall + end - start, cpu + end_cpu - start_cpu
    for each in jobs:
        model.unload_adapter(each.adapter_name)
    return wall, cpu, [[float(loss) for loss in losses[each.adapter_name]] for each in jobs]


def main():
    torch.set_num_threads(1)
    model = LLMModel.from_pretrained(sys.argv[1], device="cpu", load_dtype=torch.float32)
    print(json.dumps({"mlora": version("mlora"), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
