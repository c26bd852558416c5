"""What a reader needs to judge a fitted law: the checklist of Li et al., "(Mis)Fitting" (arXiv 2502.18969)."""

from __future__ import annotations

from marslora.core.decision import ClosedForm, LawFit
from marslora.report.data import ReportData
from marslora.report.markup import Markup, bullets, cell, collapse, join, table, tag
from marslora.report.numbers import NONE, count, listing, percent, short

PLAIN = {"converged": "fitted", "unidentified": "partly determined", "failed": "failed"}


def render_laws(data: ReportData) -> Markup:
    """Every law with its numbers."""
    return join(_render_law(law) for law in data.decision.laws)


def _render_law(law: LawFit) -> Markup:
    """One law: its formula and state, and its checklist behind a line."""
    title = tag(
        "h3",
        f"{law.law.capitalize()} law of {law.subject} ",
        tag("span", PLAIN[law.status], class_=f"badge {law.status}"),
    )
    message = tag("p", law.message, class_="soft") if law.message else Markup("")
    formula = tag("p", tag("code", law.form), class_="formula") if law.status != "failed" else Markup("")
    return tag(
        "div", title, formula, message, _parameters(law), collapse("How it was fitted", _facts(law)), class_="law"
    )


def _parameters(law: LawFit) -> Markup:
    if not law.parameters:
        return Markup("")
    level = next(iter(law.parameters.values())).level
    rows = [
        [tag("code", name), *(cell(f"{value:.6g}", number=True) for value in (each.value, each.low, each.high))]
        for name, each in law.parameters.items()
    ]
    return table(["parameter", "estimate", f"low ({percent(level)})", "high"], rows)


def _facts(law: LawFit) -> Markup:
    censored = sum(point.censored for point in law.points)
    runs = len({point.run for point in law.points})
    others = "; ".join(f"{name} {percent(error)}" for name, error in law.alternatives.items())
    facts = [
        ("points", f"{count(len(law.points))} of {count(runs)} runs, {count(censored)} censored (lower bounds)"),
        ("free parameters", count(len(law.parameters))),
        (
            "error on its own points",
            f"{_share(law.residual)} (root mean square of log residuals, censored points left out)",
        ),
        ("error on held-out ranks", f"{_share(law.held_out_error)} (each rank predicted from the others)"),
        ("forms not chosen", others + " (held-out error)" if others else NONE),
        ("condition number", f"{short(law.condition)} (Jacobian at the solution, columns scaled)"),
        ("gradient at the solution", f"{short(law.gradient)} standard errors"),
        ("starts", count(law.num_starts)),
        ("bootstrap", f"{count(law.num_bootstraps)} replicates, whole runs reweighted together"),
    ]
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in facts))


def _share(value: float) -> str:
    return NONE if value != value else f"{100 * value:.2g} %"


def render_method(data: ReportData) -> Markup:
    """How all laws were fitted, and what the runs behind them had in common."""
    training = data.spec.training
    seeds = {run.member.seed for run in data.runs}
    sizes = sorted({run.member.data_examples for run in data.runs})
    varied = [f"ranks of {listing(list(data.searched))}"]
    varied += [f"{len(sizes)} data sizes ({', '.join(map(count, sizes))} rows)"] if len(sizes) > 1 else []
    varied += [f"{len(seeds)} seeds"] if len(seeds) > 1 else []
    fixed = [part for part in data.spec.space.parts if part not in data.spec.space.searched]
    rates = "".join(f", {part} {rate:g}" for part, rate in training.part_learning_rates.items())
    constant = [
        f"learning rate {training.learning_rate:g}{rates}, constant after the warm-up: calibration runs do not decay",
        f"optimizer {training.optimizer.name}, adapter {training.adapter.name}, alpha/r {training.alpha_over_rank:g}",
        f"batch size {training.batch_size}, dropout {training.dropout:g}, weight decay {training.weight_decay:g}",
        *([f"rank of {listing([f'{part} ({data.decision.chosen.get(part)})' for part in fixed])}"] if fixed else []),
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
    """The balanced ranks solved from the equations; the search itself takes ranks of the ladder."""
    rows = [
        [
            f"{form.part}, given {form.given} {form.given_rank}",
            cell(NONE if form.rank is None else short(form.rank), number=True),
            form.status.replace("_", " "),
            form.message or NONE,
        ]
        for form in forms
    ]
    return table(["balanced rank of", "solution", "status", "remark"], rows) if rows else Markup("")
