"""What a search returns: the choice, how sure it is, the trained adapter, and pictures of what was measured."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marslora.core import patterns
from marslora.core.allocation import Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.errors import StudyError
from marslora.core.parts import ModelInfo
from marslora.core.runs import FinalResult, MetricResult
from marslora.core.schedule import make_training_arguments
from marslora.core.spec import TrainingSpec

if TYPE_CHECKING:
    from peft import LoraConfig
    from plotly.graph_objects import Figure

    from marslora.deployment.ask import Answerer
    from marslora.deployment.merge import MergeCheck
    from marslora.report.data import ReportData


@dataclass(frozen=True, repr=False)
class Decision:
    """The ranks and learning rates that a search chose, how sure it is, and where its results are."""

    record: DecisionRecord
    """The decision with every candidate, law and reason, as in `decision.json`."""
    info: ModelInfo
    """The parts of the model and their linear layers."""
    training: TrainingSpec
    """How the final run is trained, with the chosen learning rates."""
    full_examples: int
    """Examples that the final run sees."""
    seed: int
    """Seed of the final run."""
    folder: Path
    """The study folder."""
    final: FinalResult | None = None
    """Result of the final run; None if there was none (``final=False``)."""
    uniform: FinalResult | None = None
    """Result of the uniform baseline; None if there was none, or if the choice is rank 16 everywhere."""
    data: ReportData | None = None
    """What the report shows of the study; None for a decision that was made from its record alone."""

    @property
    def chosen(self) -> Allocation:
        """The chosen rank of every part."""
        return self.record.chosen

    @property
    def learning_rate(self) -> float:
        """The chosen learning rate, or the one that was given."""
        return self.training.learning_rate

    @property
    def part_learning_rates(self) -> dict[str, float]:
        """Learning rates of single parts, chosen or given."""
        return self.training.part_learning_rates

    @property
    def probability(self) -> float | None:
        """Probability that the chosen setting is the best; None if no law could be fitted."""
        return self.record.chosen_candidate.p_best

    @property
    def adapter_folder(self) -> Path | None:
        """Folder of the trained adapter, which `attach` puts on a model; None if there was no final run."""
        return Path(self.final.adapter_folder) if self.final else None

    @property
    def metric(self) -> MetricResult | None:
        """What a metric of generated answers said of the final run; None if the loss chose its point (``metric``)."""
        return self.final.metric if self.final else None

    @property
    def report(self) -> Path:
        """Path of the study's report page."""
        return self.folder / "report.html"

    def lora_config(self) -> LoraConfig:
        """Return the chosen allocation as a `peft.LoraConfig` with mutually exclusive patterns."""
        from peft import LoraConfig

        return LoraConfig(**self.lora_settings())

    def lora_settings(self) -> dict[str, Any]:
        """Return the keyword arguments of `lora_config`, as plain data."""
        full = self.info.full_modules(self.training.full)
        ranks = self.info.module_ranks(self.chosen)
        training = self.training
        stacked = self.info.stacked(self.chosen)
        return patterns.lora_config_dict(
            ranks,
            training.alpha_over_rank,
            full,
            training.dropout,
            stacked=stacked,
            tokens=self.info.token_indices(training.trainable_token_indices),
            **training.lora_variant,
        )

    def training_arguments(self) -> dict[str, Any]:
        """Return how the final run is trained as keyword arguments of `transformers.TrainingArguments` or TRL's config.

        The learning rate warms up, stays and falls as in the final run. Learning rates of single parts
        (`part_learning_rates`), which these classes do not have, need groups of parameters: a warning says so. An
        optimizer other than AdamW is given to the trainer itself.
        """
        if self.part_learning_rates:
            warnings.warn(
                f"a trainer has one learning rate, so those of parts need groups of parameters: "
                f"{self.part_learning_rates}",
                stacklevel=2,
            )
        return make_training_arguments(self.training, self.full_examples, self.seed)

    def open_answerer(self, **options: Any) -> Answerer:
        """Load the model with its adapter; ``ask`` of the result answers questions with it, and with the base alone.

        The keywords are those of `marslora.deployment.ask.open_answerer`, and the errors too.
        """
        from marslora.deployment.ask import open_answerer

        return open_answerer(self.folder, **options)

    def merge(self, out: str | Path, **options: Any) -> MergeCheck:
        """Write a whole model, the adapter merged into it, into the folder ``out``; how far its logits are off.

        The keywords are those of `marslora.deployment.merge.merge_study`, and the errors too.
        """
        from marslora.deployment.merge import merge_study

        return merge_study(self.folder, Path(out), **options)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Push the adapter with its model card to the hub; the address of the repository.

        Raises `StudyError` if there was no final run, or if the hub refuses.
        """
        from marslora.deployment.push import push_study

        return push_study(self.folder, repo, private=private)

    @property
    def summary(self) -> str:
        """The verdict in sentences, one or two a line, as the command line prints it."""
        from marslora.report.words import write_summary_lines

        return "\n".join(write_summary_lines(self.data)) if self.data else self.record.summary

    def plot_candidates(self) -> Figure:
        """The expected loss of every candidate: a map of two parts' ranks, a line for one part, else a ranking."""
        from marslora.report.figures import allocations

        return self._plot(allocations.draw_charts, "no loss is known")

    def plot_rates(self) -> Figure:
        """The expected loss at every learning rate, a line for each rank of the part that matters most."""
        from marslora.report.figures import rates

        return self._plot(rates.draw_charts, "the learning rate was not searched")

    def plot_chances(self) -> Figure:
        """The probability of each of the likeliest candidates that it is the best."""
        from marslora.report.figures import chances

        return self._plot(chances.draw_charts, f"the strategy {self.record.strategy} estimates no probabilities")

    def plot_curves(self) -> Figure:
        """The learning curves of the calibration runs that train all parts together, else of those of one part."""
        from marslora.report.figures import curves

        return self._plot(lambda data: curves.draw_charts(data)[::-1], "nothing was measured")

    def plot_final(self) -> Figure:
        """The loss during the final run."""
        from marslora.report.figures import final

        return self._plot(final.draw_charts, "there was no final run")

    def plot_costs(self) -> Figure:
        """What the search cost in full runs, and what training every candidate would cost."""
        from marslora.report.figures import costs

        return self._plot(costs.draw_charts, "nothing was measured")

    def _plot(self, draw_charts: Callable[[ReportData], Sequence[Any]], missing: str) -> Figure:
        """The first chart as a plotly figure. Raises `StudyError` if there is none, because ``missing`` is so."""
        from marslora.report.plots import make_plot

        charts = draw_charts(self.data) if self.data else []
        if not charts:
            raise StudyError(f"there is nothing to plot: {missing if self.data else 'the decision has no study'}.")
        return make_plot(charts[0])

    def __repr__(self) -> str:
        sure = "" if self.probability is None else f", best with probability {self.probability:.2f}"
        return f"Decision({self.record.setting}{sure}; study {str(self.folder)!r})"

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, a table of the likeliest candidates, and a picture of their losses."""
        from marslora.report.notebook import render_decision

        return render_decision(self.data, self.folder) if self.data else f"<p>{html.escape(self.record.summary)}</p>"
