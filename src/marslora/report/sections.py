"""The sections of the page, in the order in which they are read."""

from __future__ import annotations

import math

from marslora.report import checklist, tables
from marslora.report.data import ReportData, calibration_spending, grid_spending, total_spending
from marslora.report.figures.curves import JOINT, group_runs
from marslora.report.markup import Markup, bullets, collapse, join, paragraphs, section, tag
from marslora.report.numbers import SPACE, compact, duration, listing, loss, percent, plural, runs, short
from marslora.report.words import (
    collect_notices,
    describe_certainty,
    describe_cost,
    describe_gain,
    explain_terms,
    headline,
    make_sentence,
)


def render_verdict(data: ReportData) -> Markup:
    """The choice in words, four numbers, what must not be missed, and what the terms mean."""
    kicker = f"{data.info.architecture}, {listing(list(data.info.modalities))}; strategy {data.decision.strategy}"
    warnings = (
        tag("div", tag("strong", notice.title), tag("p", notice.text), class_=f"notice {notice.level}", role="note")
        for notice in collect_notices(data)
    )
    return join(
        [
            tag("p", kicker, class_="kicker"),
            tag("h1", headline(data)),
            tag("p", data.decision.summary, class_="lead"),
            tag("div", *render_tiles(data), class_="tiles"),
            paragraphs([describe_certainty(data), " ".join(describe_gain(data)), describe_cost(data)]),
            join(warnings),
            tag("p", explain_terms(data), class_="soft"),
        ]
    )


def render_tiles(data: ReportData) -> list[Markup]:
    """Ranks, certainty, gain and cost as large numbers."""
    decision, final = data.decision, data.final
    total, grid = total_spending(data), grid_spending(data)
    chance = "observed" if data.chosen.p_best is None else percent(data.chosen.p_best)
    sure = {"clear": chance, "indistinguishable": "undecided", "fallback": "fallback"}
    known = {
        "clear": f"probability of being the best of {len(decision.candidates)}"
        if data.chosen.p_best is not None
        else "lowest loss; no probability",
        "indistinguishable": f"{plural(len(decision.plausible), 'allocation')} hold 90{SPACE}% of the probability",
        "fallback": "the laws could not decide",
    }
    tiles = [
        _tile(
            "Ranks",
            ", ".join(f"{part} {decision.chosen.get(part)}" for part in data.searched),
            f"{compact(data.num_trainable(decision.chosen))} trainable parameters",
        ),
        _tile("How sure", sure[decision.verdict], known[decision.verdict]),
    ]
    if final is not None:
        change = f"{loss(final.base_validation_loss)} to {loss(final.validation_loss)}"
        tiles.append(_tile("Validation loss", change, "nats per answer token, before and after"))
    elif data.chosen.predicted_loss is not None:
        expected = data.chosen.predicted_loss
        tiles.append(_tile("Expected loss", loss(expected.value), f"{loss(expected.low)} to {loss(expected.high)}"))
    seconds = "" if total.seconds is None else f"{duration(total.seconds)}; "
    ratio = short(grid.runs / total.runs) if total.runs else "-"
    tiles.append(
        _tile(
            "Cost",
            runs(total.runs),
            f"{seconds}training all {data.num_allocations} would cost {ratio} times as many full runs",
        )
    )
    return tiles


def _tile(label: str, value: str, more: str) -> Markup:
    parts = (("label", label), ("value", value), ("more", more))
    return tag("div", *(tag("div", content, class_=name) for name, content in parts), class_="tile")


def render_use(data: ReportData, _: Markup) -> Markup:
    """The choice as code."""
    if not data.snippet:
        return Markup("")
    folder = data.final.adapter_folder if data.final else None
    trained = [tag("p", "The trained adapter: ", tag("code", folder), ".")] if folder else []
    code = tag("div", tag("pre", tag("code", data.snippet.strip())), class_="copied")
    return section("use", "Use it", *trained, tag("p", "The same ranks in a training script of your own:"), code)


def render_parts(data: ReportData, _: Markup) -> Markup:
    """What the model is made of."""
    dead = sum(len(part.linears) - len(part.alive) for part in data.info.parts)
    said = [f"{data.info.architecture} has {compact(data.info.num_parameters)} parameters."]
    if dead:
        said.append(f"{plural(dead, 'linear layer')} got no gradient in a probe (dead) and will not be adapted.")
    if data.info.unlabelled:
        said.append(f"{plural(len(data.info.unlabelled), 'linear layer')} outside of all parts will not be adapted.")
    warnings = bullets(data.info.warnings) if data.info.warnings else Markup("")
    return section("parts", "The parts", tag("p", " ".join(said)), tables.build_parts_table(data), warnings)


def render_curves(data: ReportData, charts: Markup) -> Markup:
    """How every part learned."""
    if not charts:
        return Markup("")
    groups = group_runs(data)
    alone = any(runs for name, runs in groups.items() if name != JOINT)
    said = ["Each part was adapted alone to measure how fast it learns."] if alone else []
    said += ["Runs of several parts show how allocations compare."] if groups[JOINT] else []
    return section("curves", "How the parts learn", tag("p", " ".join(said)), charts)


def render_convergence(data: ReportData, charts: Markup) -> Markup:
    """How long every part learns, by rank."""
    solved = checklist.render_closed_forms(data.decision.closed_forms)
    if not charts and not solved:
        return Markup("")
    said = (
        "Law-C, the convergence law, describes how many examples a part needs to converge at each rank. Lines are the "
        "fitted laws, bands their 90 % bootstrap intervals."
    )
    more = collapse("The balanced ranks in closed form", solved) if solved else Markup("")
    return section("laws", "How long they learn", tag("p", said), charts, more)


def render_allocations(_: ReportData, charts: Markup) -> Markup:
    """What every allocation is worth."""
    return section("map", "Which ranks together", charts) if charts else Markup("")


def render_final_run(data: ReportData, charts: Markup) -> Markup:
    """How the chosen allocation trained."""
    if data.final is None:
        return section("final", "The final run", tag("p", "It has not been made yet."))
    return section("final", "The final run", tables.build_results_table(data), charts)


def render_cost(data: ReportData, charts: Markup) -> Markup:
    """What it cost against a grid."""
    spent = calibration_spending(data)
    said = "Costs are counted in full runs: trainings of one allocation to the end."
    if spent.runs == 0:
        said += " Nothing was measured before the decision."
    return section("cost", "What it cost", tag("p", said), charts, collapse("Numbers", tables.build_cost_table(data)))


def render_candidates(data: ReportData, _: Markup) -> Markup:
    """Every allocation and why it was kept or dropped."""
    number = len(data.decision.candidates)
    dropped = sum(candidate.status == "dropped" for candidate in data.decision.candidates)
    said = f"{number} allocations: {dropped} dropped, {number - dropped - 1} kept, one chosen."
    worst = max((c.imbalance.value for c in data.decision.candidates if c.imbalance is not None), default=math.nan)
    if not math.isnan(worst):
        said += " Imbalance is the ratio of the parts' convergence times (1 is balanced); "
        said += f"here it goes up to {short(math.exp(worst))}."
    table = collapse("Every candidate with its reason", tables.build_candidates_table(data))
    return section("candidates", "All candidates", tag("p", said), table)


def render_laws_in_detail(data: ReportData, charts: Markup) -> Markup:
    """What it takes to judge the laws."""
    if not data.decision.laws:
        said = f"The strategy {data.decision.strategy} fits no law."
        return section(
            "checklist",
            "The laws in detail",
            tag("p", said),
            collapse("How it was measured", checklist.render_method(data)),
        )
    return section(
        "checklist",
        "The laws in detail",
        charts,
        checklist.render_laws(data),
        collapse("How all of them were measured", checklist.render_method(data)),
    )


def render_assumptions(data: ReportData, _: Markup) -> Markup:
    """What was taken for granted, and what would make the answer surer."""
    decision = data.decision
    assumed = [tag("h3", "Assumed"), bullets(map(make_sentence, decision.assumptions))] if decision.assumptions else []
    ahead = (
        [tag("h3", "What to run next"), bullets(map(make_sentence, decision.next_steps))] if decision.next_steps else []
    )
    return section("next", "Assumptions and next steps", *assumed, *ahead) if assumed or ahead else Markup("")


def render_details(data: ReportData, _: Markup) -> Markup:
    """The data, the versions, the full spec."""
    versions = "\n".join(f"{name} {version}" for name, version in data.versions.items())
    return section(
        "details",
        "Details",
        tables.build_data_table(data),
        collapse("Versions and device", tag("pre", f"device {data.device or 'not recorded'}\n{versions}".strip())),
        collapse("The whole spec", tag("pre", tag("code", data.spec.to_json()))),
    )


def render_footer(data: ReportData) -> Markup:
    """Which study this is."""
    return tag(
        "footer",
        f"Study {data.spec.digest()}. Losses are the mean cross-entropy on held-out rows, in nats per answer token.",
    )
