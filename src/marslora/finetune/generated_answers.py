"""Measure a metric on the answers that a model generates to the rows of a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import distributed

from marslora.core.errors import ConfigError
from marslora.core.runs import MetricResult
from marslora.data.encode import EncodedRows
from marslora.data.prompts import Prompt, find_end_tokens, list_prompts
from marslora.data.rows import EncodedSplits, Split
from marslora.data.splits import ExampleSplits
from marslora.finetune.checkpoints import FinalRunState
from marslora.finetune.cost import count_flops
from marslora.finetune.evaluate import SplitScore, get_rank_and_size
from marslora.finetune.labels import LabelledSet
from marslora.methods import AbstractChange
from marslora.metrics import Metric, measure
from marslora.models.generation import generate_greedily

SPARE_TOKENS = 16
"""How many tokens longer than the longest expected answer of its split an answer may be; a convention."""


@dataclass
class GenerationCost:
    """What generating has cost since the run was last started."""

    answers: int = 0
    tokens: int = 0
    """Tokens of the answers, without those that end them."""
    seconds: float = 0.0
    flops_per_answer: float = 0.0
    """Counted for the first batch."""


@dataclass
class AnswerMetric:
    """A metric of the answers that a model, as it is now, generates to all prompts of a split."""

    name: str
    metric: Metric
    change: AbstractChange
    rows: EncodedSplits[Any]
    examples: ExampleSplits
    processor: Any
    batch_size: int
    dtype: torch.dtype
    cost: GenerationCost = field(default_factory=GenerationCost)

    def __post_init__(self) -> None:
        """Refuse models and adapters to which answers cannot be generated from prompts alone."""
        if bool(getattr(self.change.model.config, "is_encoder_decoder", False)):
            raise ConfigError(
                f"`metric` {self.name} cannot be measured with an encoder-decoder model, whose rows hold no prompt "
                "without the answer. Leave `metric` out."
            )
        if self.rows.tasks:
            raise ConfigError(
                f"`metric` {self.name} cannot be measured with an adapter that has a head for each of the tasks "
                f"{list(self.rows.tasks)}. Leave `metric` out, or choose another adapter."
            )
        self._end_tokens = find_end_tokens(self.processor)

    def score(self, split: Split) -> float:
        """The metric of the split, the same in every process of the run. Raises `ConfigError` if it has no prompt."""
        rows = _unwrap(self.rows.split(split))
        prompts = list_prompts(rows, getattr(self.examples, split))
        if not prompts:
            raise ConfigError(
                f"`metric` {self.name} needs answers that follow all pictures and sounds of their row, found none in "
                f"the {split} rows. Leave `metric` out, or put pictures and sounds before the answers."
            )
        began = time.monotonic()
        predictions = self._generate(rows, prompts)
        self.cost.seconds += time.monotonic() - began
        references = [self._decode(prompt.answer) for prompt in prompts]
        return measure(self.name, self.metric, predictions, references)

    def _generate(self, rows: EncodedRows, prompts: Sequence[Prompt]) -> list[str]:
        """The answers to the prompts in their order; each of n processes generates every n-th batch."""
        longest = max(len(prompt.answer) for prompt in prompts) + SPARE_TOKENS
        by_length = sorted(range(len(prompts)), key=lambda index: prompts[index].end)
        rank, num_processes = get_rank_and_size()
        mine: dict[int, list[int]] = {}
        for start in range(rank * self.batch_size, len(prompts), num_processes * self.batch_size):
            places = by_length[start : start + self.batch_size]
            batch = rows.prompts([prompts[at].row for at in places], [prompts[at].end for at in places])
            mine |= dict(zip(places, self._answer(batch, longest), strict=True))
        answers = _gather(mine)
        self.cost.answers += len(answers)
        self.cost.tokens += sum(map(len, answers.values()))
        return [self._decode(answers[at]) for at in range(len(prompts))]

    def _answer(self, batch: dict[str, Any], max_tokens: int) -> list[list[int]]:
        tokenizer = self.processor.tokenizer
        generate = partial(
            generate_greedily,
            getattr(self.change, "base", self.change.model),
            batch,
            max_tokens=max_tokens,
            end_tokens=self._end_tokens,
            pad_token=self._end_tokens[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            dtype=self.dtype,
        )
        if self.cost.flops_per_answer:
            return generate()
        answers: list[list[int]] = []
        self.cost.flops_per_answer = count_flops(lambda: answers.extend(generate())) / len(batch["input_ids"])
        return answers

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self.processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def report_metric(
    metric: AnswerMetric,
    progress: FinalRunState,
    validation: SplitScore,
    test: SplitScore | None,
    base_test: SplitScore | None,
) -> MetricResult:
    """What the metric said before training, on the way, and at the point that was kept."""
    assert progress.base_validation_metric is not None and validation.metric is not None
    lowest = progress.lowest
    return MetricResult(
        name=metric.name,
        base_validation=progress.base_validation_metric,
        validation=validation.metric,
        base_test=base_test and base_test.metric,
        test=test and test.metric,
        curve=progress.metric_curve,
        at_lowest_loss=None if lowest is None else progress.metric_curve[lowest],
        loss_correlation=_correlate(progress.validation_curve, progress.metric_curve),
        num_answers=metric.cost.answers,
        num_tokens=metric.cost.tokens,
        seconds=metric.cost.seconds,
    )


def _correlate(losses: Sequence[float], values: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three points, or if one of both never changes."""
    if len(losses) < 3 or len(set(losses)) == 1 or len(set(values)) == 1:
        return None
    return float(spearmanr(losses, values).statistic)


def _unwrap(rows: Any) -> EncodedRows:
    encoded: EncodedRows = rows.encoded if isinstance(rows, LabelledSet) else rows
    return encoded


def _gather(mine: dict[int, list[int]]) -> dict[int, list[int]]:
    """The answers of all processes by the place of their prompt."""
    num_processes = get_rank_and_size()[1]
    if num_processes == 1:
        return mine
    every: list[Any] = [None] * num_processes
    distributed.all_gather_object(every, mine)
    return {at: answer for part in every for at, answer in part.items()}
