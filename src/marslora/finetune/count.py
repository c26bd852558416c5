"""Count how many parameters a method trains at several allocations, without reading any weights."""

from __future__ import annotations

from marslora.core.allocation import Allocation
from marslora.core.runs import CountResult, Emit
from marslora.core.schedule import num_steps
from marslora.core.spec import CountSpec, FinalSpec
from marslora.data.rows import load_encoded_splits
from marslora.finetune.labels import label_rows
from marslora.finetune.model import find_method
from marslora.methods import AbstractMethod, AdapterPlan, BatchContext
from marslora.models import loading
from marslora.models.folders import MEMORY


def count_trainable(spec: CountSpec, emit: Emit) -> None:
    """Emit the trainable parameters of every allocation, parts trained whole included, as a `CountResult`.

    Raises what loading the model's configuration raises, and for a method with a head per task what `label_rows`
    raises.
    """
    method, training, info = find_method(spec.run.training), spec.run.training, spec.info
    if method is None:
        counts = [
            info.num_trainable(each, training.full, use_dora=training.use_dora, ids=training.trainable_token_indices)
            for each in spec.allocations
        ]
    else:
        whole = sum(info.part(part).num_parameters for part in training.full if part not in info.unreached)
        sizes = {linear.name: (linear.inputs, linear.outputs) for part in info.parts for linear in part.linears}
        base = _make_base_plan(spec, method)
        counts = [whole + method.count(sizes, _plan_allocation(base, spec, each)) for each in spec.allocations]
    emit(CountResult(num_trainable=tuple(counts)))


def _make_base_plan(spec: CountSpec, method: AbstractMethod) -> AdapterPlan:
    run = spec.run
    model = loading.load(run.model).model if run.model.path.startswith(MEMORY) else loading.skeleton(run.model)
    return AdapterPlan(
        ranks={},
        parts={},
        full_modules=run.full_modules,
        num_steps=num_steps(run.full_examples, run.training.batch_size),
        tasks=_list_tasks(run, method),
        modalities=BatchContext(model).modalities,
    )


def _plan_allocation(base: AdapterPlan, spec: CountSpec, allocation: Allocation) -> AdapterPlan:
    ranks = spec.info.module_ranks(allocation)
    part_of = spec.info.part_of()
    parts = {path: part_of[path] for path in (*ranks, *spec.run.full_modules)}
    return base.model_copy(update={"ranks": ranks, "parts": parts})


def _list_tasks(run: FinalSpec, method: AbstractMethod) -> tuple[str, ...]:
    if method.column is None:
        return ()
    rows = load_encoded_splits(run.data, loading.load_processor(run.model), run.cache_folder)
    return label_rows(rows, run.data, method).tasks
