"""Render what a reader needs to judge a fitted law: the checklist of Li et al., "(Mis)Fitting" (arXiv 2502.18969)."""

from __future__ import annotations

from marslora.core.decision import ClosedForm, LawFit
from marslora.report.candidates import list_rates
from marslora.report.data import ReportData
from marslora.report.markup import Markup, bullets, cell, collapse, join, table, tag
from marslora.report.numbers import NONE, format_count, format_number, format_percent, join_words

PLAIN = {"converged": "fitted", "unidentified": "partly determined", "failed": "failed"}


def render_laws(data: ReportData) -> Markup:
    """Every fitted law with its checklist."""
    return join(_render_law(law) for law in data.decision.laws)


def _render_law(law: LawFit) -> Markup:
    """One law: its formula and status, and its checklist, collapsed."""
    title = tag(
        "h3",
        f"{law.law.capitalize()} law of {law.subject} ",
        tag("span", PLAIN[law.status], class_=f"badge {law.status}"),
    )
    message = tag("p", law.message, class_="soft") if law.message else Markup("")
    formula = tag("p", tag("code", law.form), class_="formula") if law.status != "failed" else Markup("")
    return tag(
        "div",
        title,
        formula,
        message,
        _build_parameters_table(law),
        collapse("How it was fitted", _list_facts(law)),
        class_="law",
    )


def _build_parameters_table(law: LawFit) -> Markup:
    if not law.parameters:
        return Markup("")
    level = next(iter(law.parameters.values())).level
    rows = [
        [tag("code", name), *(cell(f"{value:.6g}", number=True) for value in (each.value, each.low, each.high))]
        for name, each in law.parameters.items()
    ]
    return table(["parameter", "estimate", f"low ({format_percent(level)})", "high"], rows)


def _list_facts(law: LawFit) -> Markup:
    points = format_count(len(law.points))
    runs = format_count(len({point.run for point in law.points}))
    censored = format_count(sum(point.censored for point in law.points))
    others = "; ".join(f"{name} {format_percent(error)}" for name, error in law.alternatives.items())
    facts = [
        ("points", f"{points} of {runs} runs, {censored} censored (lower bounds)"),
        ("free parameters", format_count(len(law.parameters))),
        (
            "error on its own points",
            f"{_format_error(law.residual)} (root mean square of log residuals, censored points left out)",
        ),
        ("error on held-out ranks", f"{_format_error(law.held_out_error)} (each rank predicted from the others)"),
        ("forms not chosen", others + " (held-out error)" if others else NONE),
        ("condition number", f"{format_number(law.condition)} (Jacobian at the solution, columns scaled)"),
        ("gradient at the solution", f"{format_number(law.gradient)} standard errors"),
        ("starts", format_count(law.num_starts)),
        ("bootstrap", f"{format_count(law.num_bootstraps)} replicates, whole runs reweighted together"),
    ]
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in facts))


def _format_error(value: float) -> str:
    return NONE if value != value else f"{100 * value:.2g} %"


def render_method(data: ReportData) -> Markup:
    """How all laws were fitted, and what varied between the runs that they were fitted to."""
    training = data.spec.training
    seeds = {run.member.seed for run in data.runs}
    sizes = sorted({run.member.data_examples for run in data.runs})
    tried = list_rates(data)
    varied = [f"ranks of {join_words(list(data.searched))}"]
    varied += [f"learning rates ({', '.join(f'{rate:g}' for rate in tried)})"] if len(tried) > 1 else []
    apart = dict.fromkeys(part for each in data.decision.candidates for part in each.part_learning_rates)
    varied += [f"the learning rate of {part}, apart from that of the others" for part in apart]
    varied += [f"{len(sizes)} data sizes ({', '.join(map(format_count, sizes))} rows)"] if len(sizes) > 1 else []
    varied += [f"{len(seeds)} seeds"] if len(seeds) > 1 else []
    fixed = [part for part in data.space.parts if part not in data.space.searched]
    rates = "".join(f", {part} {rate:g}" for part, rate in training.part_learning_rates.items())
    given = f"the learning rates{rates}" if len(tried) > 1 else f"learning rate {training.learning_rate:g}{rates}"
    constant = [
        f"{given}, constant after the warm-up: calibration runs do not decay",
        f"optimizer {training.optimizer.name}, adapter {training.adapter.name}, alpha/r {training.alpha_over_rank:g}",
        f"batch size {training.batch_size}, dropout {training.dropout:g}, weight decay {training.weight_decay:g}",
        *([f"rank of {join_words([f'{part} ({data.decision.chosen.get(part)})' for part in fixed])}"] if fixed else []),
        *([] if len(sizes) > 1 else ["the size of the data"]),
        *([] if len(seeds) > 1 else ["the seed: run-to-run noise was not measured"]),
    ]
    fitted = (
        "Laws are fitted to log values with a Huber loss (censored points count by the probability of lying above "
        "their bound), from many starts, each refined until the gradient vanishes. Intermediate checkpoints of the "
        "calibration runs are used; parameters are given to six digits."
    )
    software = ", ".join(f"{name} {version}" for name, version in data.versions.items()) or "not recorded"
    return join(
        [
            tag("p", fitted),
            tag("h3", "Varied"),
            bullets(varied),
            tag("h3", "Not varied"),
            bullets(constant),
            tag("p", f"Software: {software}. Device: {data.device or 'not recorded'}.", class_="soft"),
        ]
    )


def render_closed_forms(forms: tuple[ClosedForm, ...]) -> Markup:
    """A table of the balanced ranks in closed form (the search itself chooses from the ladders); empty if none."""
    rows = [
        [
            f"{form.part}, given {form.given} {form.given_rank}",
            cell(NONE if form.rank is None else format_number(form.rank), number=True),
            form.status.replace("_", " "),
            form.message or NONE,
        ]
        for form in forms
    ]
    return table(["balanced rank of", "solution", "status", "remark"], rows) if rows else Markup("")
