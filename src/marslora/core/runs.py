"""What training reports: events, results, their costs, and the runs that are assembled from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from marslora.core.allocation import Allocation
from marslora.core.errors import MarsloraError, OutOfMemoryError, StudyError, WorkerDiedError, find_error, rebuild_error
from marslora.core.parts import ModelInfo
from marslora.core.record import Record
from marslora.core.spec import VALIDATION_WORK, MemberSpec

Status = Literal["running", "complete", "diverged", "stopped", "failed"]


class Cost(Record):
    """The cost of a piece of work. Costs are added with ``+``; the peak of a sum is the larger of the two."""

    seconds: float = 0.0
    """Wall time of the work."""
    examples: int = 0
    """Training examples seen, summed over members."""
    validation_examples: int = 0
    """Validation rows scored, summed over members."""
    flops: float = 0.0
    """Counted floating-point operations, forward and backward, validation included."""
    peak_bytes: int = 0

    @property
    def work(self) -> float:
        """Training and validation together, in training examples."""
        return self.examples + VALIDATION_WORK * self.validation_examples

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            seconds=self.seconds + other.seconds,
            examples=self.examples + other.examples,
            validation_examples=self.validation_examples + other.validation_examples,
            flops=self.flops + other.flops,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
        )


class Observation(Record):
    """One number measured while a member trained."""

    member: str
    examples: int
    """Examples this member had seen."""
    metric: str
    """``validation_loss`` and ``train_loss`` (mean nats per answer token, the latter over the steps since the member's
    last point), ``validation_accuracy`` (share of answer tokens predicted correctly), and on request
    ``update_norm.PART`` (norm of a part's last update)."""
    value: float


class MemberResult(Record):
    """How the training of a member ended."""

    member: str
    status: Status
    examples: int
    message: str = ""
    cost: Cost = Cost()
    """The member's share of its pack's cost."""


class PackResult(Record):
    """How the training of a pack ended."""

    pack: str
    members: tuple[MemberResult, ...]
    cost: Cost
    device: str = ""


class Failure(Record):
    """A spec that could not be run; other specs are not affected."""

    id: str
    """The id of the spec, see `spec_id`."""
    error: str
    """The name of the error's class."""
    message: str

    @classmethod
    def of(cls, spec: Record, error: BaseException) -> Failure:
        """The failure of ``spec`` because of an error that was raised while it ran."""
        return cls(id=spec_id(spec), error=type(error).__name__, message=str(error))

    @property
    def may_pass(self) -> bool:
        """Whether the same spec may succeed later: a process that was killed or lacked memory, not a user's error."""
        return find_error(self.error) in (None, WorkerDiedError, OutOfMemoryError)

    def to_error(self) -> MarsloraError:
        """Rebuild the error, so that it can be raised later or in another process."""
        return rebuild_error(self.error, self.message)


def spec_id(spec: Record) -> str:
    """The id of a spec, or its digest if it has no id."""
    return str(getattr(spec, "id", "") or spec.digest())


class Run(Record):
    """One member with all its measurements: the input of laws and strategies."""

    member: MemberSpec
    status: Status
    examples: tuple[int, ...]
    """Examples seen at each validation point, increasing; the first is 0."""
    validation_loss: tuple[float, ...]
    """Mean nats per answer token on the held-out split, at those points."""
    train_examples: tuple[int, ...] = ()
    """Examples seen at each point at which the training loss was recorded, increasing."""
    train_loss: tuple[float, ...] = ()
    """Mean training loss since the point before, in nats per answer token."""
    cost: Cost = Cost()

    @property
    def last_loss(self) -> float:
        """The latest validation loss; infinity if there is none or the run diverged."""
        return self.validation_loss[-1] if self.validation_loss and self.status != "diverged" else float("inf")

    @property
    def best_loss(self) -> float:
        """The lowest validation loss after the first step, at which a final run is kept; infinity as in `last_loss`."""
        trained = [loss for t, loss in zip(self.examples, self.validation_loss, strict=True) if t]
        return min(trained, default=self.last_loss) if self.status != "diverged" else float("inf")

    @property
    def last_examples(self) -> int:
        """Examples seen when anything was last measured; 0 without any."""
        return max((*self.examples[-1:], *self.train_examples[-1:]), default=0)

    @property
    def last_measured(self) -> float:
        """The latest loss after the start: of validation, or of training if it was never validated."""
        if self.num_validations or not self.train_loss or self.status == "diverged":
            return self.last_loss
        return self.train_loss[-1]

    @property
    def num_validations(self) -> int:
        """How often it was validated after its start."""
        return sum(examples > 0 for examples in self.examples)


class CalibrationRuns(Record):
    """The runs before the final one, for trackers."""

    trackers: tuple[str, ...]
    """Names of the trackers, as `transformers` calls them."""
    project: str
    folder: str
    """The study folder, in which trackers that write files write them."""
    runs: tuple[Run, ...]


class MetricResult(Record):
    """A metric of the answers that a final run generated to its rows; more is better."""

    name: str
    base_validation: float
    """Of the model before training, as ``base_test``."""
    validation: float
    """Of the point that was kept, as ``test``."""
    base_test: float | None = None
    test: float | None = None
    curve: tuple[float, ...] = ()
    """On the validation rows, at the same examples as the loss."""
    at_lowest_loss: float | None = None
    """On the validation rows at the point whose loss is lowest after the start, which the loss would have kept."""
    loss_correlation: float | None = None
    """Spearman's rank correlation between the loss and the metric over the points of the curve; -1 if both order them
    alike. None for fewer than three points, or if one of both never changes."""
    num_answers: int = 0
    """Answers that were generated since the run was last started."""
    num_tokens: int = 0
    """Tokens of these answers."""
    seconds: float = 0.0
    """What generating them took; part of the run's cost."""


class FinalResult(Record):
    """The result of a final run. Losses are mean nats per answer token, accuracies shares of answer tokens."""

    id: str
    """The id of the run's `FinalSpec`."""
    adapter_folder: str
    allocation: Allocation
    """The ranks that the run was planned with; a method may have redistributed them during the run."""
    num_trainable: int
    base_validation_loss: float
    base_validation_accuracy: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    base_test_loss: float | None = None
    base_test_accuracy: float | None = None
    examples: tuple[int, ...] = ()
    validation_curve: tuple[float, ...] = ()
    """Validation loss at ``examples``."""
    train_examples: tuple[int, ...] = ()
    train_curve: tuple[float, ...] = ()
    """Mean training loss since the point before, at ``train_examples``."""
    kept_examples: int | None = None
    """Examples at the point of the curve at which the adapter was saved; None if that is the end."""
    started_at_examples: int = 0
    """Examples seen by the calibration run that it continued; 0 if it started from scratch."""
    metric: MetricResult | None = None
    """The metric that chose the point; None if the loss did."""
    cost: Cost = Cost()

    @property
    def reached_loss(self) -> float:
        """The validation loss that a prediction is of: the lowest of the run if a metric chose another point."""
        trained = [loss for seen, loss in zip(self.examples, self.validation_curve, strict=True) if seen]
        return self.validation_loss if self.metric is None else min(trained, default=self.validation_loss)


GRADIENTS = "gradients.jsonl"
"""The file in a run's folder that holds one `BlockGradient` per line."""


class BlockGradient(Record):
    """The gradients of the objectives in one optimizer step, over one block of parameters."""

    block: str
    objectives: tuple[str, ...]
    """The objectives with a gradient in this block."""
    norms: tuple[float, ...]
    """The norm of every objective's gradient."""
    cosine: float | None
    """Cosine between the two gradients; the lowest of all pairs if there are more, None if there is one."""
    weights: tuple[float, ...]
    """The weight of every objective in the combined gradient."""
    norm: float
    """The norm of the combined gradient."""
    alignment: tuple[float, ...]
    """Cosine between the combined gradient and every objective's; if it is below 0, the step worsens the objective."""
    case: str
    """The rule of the combiner that applied."""
    step: int = 0

    def scaled(self, factor: float) -> BlockGradient:
        """Return a copy with all norms multiplied by ``factor``."""
        norms = tuple(factor * norm for norm in self.norms)
        return self.model_copy(update={"norms": norms, "norm": factor * self.norm})


class ProgressEvent(Record):
    """The progress of a long piece of work, for progress bars; not stored."""

    task: str
    done: float
    total: float
    detail: str = ""
    """The latest losses in words."""


class DataSummary(Record):
    """The rows that a study uses."""

    num_train: int
    num_validation: int
    num_test: int
    num_bad: int = 0
    bad_rows: tuple[str, ...] = ()
    """The first unusable rows, each with its file, number and reason."""
    answer_tokens: float = 0.0
    """Mean answer tokens of a training row, the ones that the loss counts."""
    tokens: float = 0.0
    """Mean tokens of a training row, including those of its images."""
    fingerprint: str = ""
    """A digest that changes when any row changes."""


class Prepared(Record):
    """The answer to a `PrepareSpec`: the parts of the model and the rows."""

    info: ModelInfo
    data: DataSummary
    device: str
    model_fingerprint: str = ""
    """A digest that changes when the weights or the configuration of the model change; empty if it is not known."""
    versions: dict[str, str] = {}
    cost: Cost = Cost()
    """The cost of reading, encoding and probing."""


class CountResult(Record):
    """The answer to a `CountSpec`, or the operations of one row of a run."""

    num_trainable: tuple[int, ...]
    """Trainable parameters of every allocation."""
    flops_per_row: float | None = None
    """Floating-point operations of training on one row, forward and backward."""
    flops_before: float = 0.0
    """Floating-point operations before the first step."""


Event = Observation | MemberResult | PackResult | Failure | ProgressEvent | Prepared | FinalResult | CountResult
"""Everything that the training packages report."""

Emit = Callable[[Event], None]
"""A function that the training packages call with each event as soon as it happens."""
Answer = TypeVar("Answer", bound=Event)


def collect_answer(
    run: Callable[[Emit], None],
    kind: type[Answer],
    work: str,
    advance: Callable[[ProgressEvent], None] | None = None,
) -> Answer:
    """Call ``run`` and return the event of type ``kind`` that it ends with; ``advance`` gets its progress.

    Raises the error of a `Failure`; raises `StudyError`, which names ``work``, if there was no such event.
    """
    answers: list[Answer] = []

    def receive(event: Event) -> None:
        match event:
            case Failure():
                raise event.to_error()
            case kind():
                answers.append(event)
            case ProgressEvent() if advance is not None:
                advance(event)

    run(receive)
    if not answers:
        raise StudyError(
            f"{work} ended without an event `{kind.__name__}`. This is a bug in marslora or in the executor; run the "
            "command again."
        )
    return answers[-1]
