"""Render the sections of the page, here in reading order. A section without content is empty markup."""

from __future__ import annotations

import math

from marslora.report import checklist, tables
from marslora.report.candidates import list_rates
from marslora.report.data import ReportData, compute_calibration_spending, compute_grid_spending, compute_total_spending
from marslora.report.figures.curves import JOINT, group_runs
from marslora.report.gain import describe_gain, describe_outcome
from marslora.report.markup import Markup, bullets, collapse, join, paragraphs, section, tag
from marslora.report.numbers import (
    SPACE,
    abbreviate_count,
    format_duration,
    format_full_runs,
    format_loss,
    format_number,
    format_percent,
    format_rates,
    join_words,
    pluralise,
)
from marslora.report.words import (
    collect_notices,
    describe_certainty,
    describe_cost,
    describe_effects,
    describe_unfitted_law,
    explain_terms,
    make_sentence,
    write_headline,
)


def render_verdict(data: ReportData) -> Markup:
    """The head of the page: the choice in words, four large numbers, warnings, and what the terms mean."""
    kicker = f"{data.info.architecture}, {join_words(list(data.info.modalities))}; strategy {data.decision.strategy}"
    warnings = (
        tag("div", tag("strong", notice.title), tag("p", notice.text), class_=f"notice {notice.level}", role="note")
        for notice in collect_notices(data)
    )
    return join(
        [
            tag("p", kicker, class_="kicker"),
            tag("h1", write_headline(data)),
            tag("p", describe_certainty(data), class_="lead"),
            tag("div", *render_tiles(data), class_="tiles"),
            paragraphs(
                filter(None, (" ".join(each(data)) for each in (describe_outcome, describe_effects, describe_gain)))
            ),
            tag("p", describe_cost(data)),
            join(warnings),
            tag("p", explain_terms(data), class_="soft"),
        ]
    )


def render_tiles(data: ReportData) -> list[Markup]:
    """The tiles with large numbers: ranks, learning rate, certainty, loss and cost."""
    ranks = ", ".join(f"{part} {data.decision.chosen.get(part)}" for part in data.searched)
    size = f"{abbreviate_count(data.num_trainable(data.decision.chosen))} trainable parameters"
    return [
        _render_tile("Ranks", ranks, size),
        *_render_rate_tile(data),
        _render_certainty_tile(data),
        *_render_loss_tiles(data),
        _render_cost_tile(data),
    ]


def _render_certainty_tile(data: ReportData) -> Markup:
    decision, p_best = data.decision, data.chosen.p_best
    undecided = f"{pluralise(len(decision.plausible), data.candidate_noun)} hold 90{SPACE}% of the probability"
    number = len(decision.candidates)
    clear = ("observed", "lowest loss; no probability")
    if p_best is not None:
        clear = (format_percent(p_best), f"probability of being the best of {number}")
    words = {
        "clear": clear,
        "indistinguishable": ("undecided", undecided),
        "unmeasured": ("a guess", undecided),
        "alike": ("all alike", "nothing that was searched matters much"),
        "fallback": ("fallback", "the laws could not decide"),
    }
    return _render_tile("How sure", *words[decision.verdict])


def _render_loss_tiles(data: ReportData) -> list[Markup]:
    """The loss of the final run and the metric of its answers; before that run, the loss that is expected."""
    final, expected = data.final, data.chosen.predicted_loss
    if final is None:
        if expected is None:
            return []
        interval = f"{format_loss(expected.low)} to {format_loss(expected.high)}"
        return [_render_tile("Expected loss", format_loss(expected.value), interval)]
    change = f"{format_loss(final.base_validation_loss)} to {format_loss(final.validation_loss)}"
    tiles = [_render_tile("Validation loss", change, "nats per answer token, before and after")]
    if (metric := final.metric) is not None:
        change = f"{format_number(metric.base_validation)} to {format_number(metric.validation)}"
        tiles.append(_render_tile(metric.name, change, "of generated answers to validation rows, before and after"))
    return tiles


def _render_cost_tile(data: ReportData) -> Markup:
    total, grid = compute_total_spending(data), compute_grid_spending(data)
    seconds = "" if total.seconds is None else f"{format_duration(total.seconds)}; "
    ratio = format_number(grid.runs / total.runs) if total.runs else "-"
    more = f"{seconds}training all {data.num_candidates} would cost {ratio} times as many full runs"
    return _render_tile("Cost", format_full_runs(total.runs), more)


def _render_rate_tile(data: ReportData) -> list[Markup]:
    decision, rates = data.decision, list_rates(data)
    if decision.learning_rate is None:
        return []
    own = ", ".join(f"{part} {rate:.2g}" for part, rate in decision.part_learning_rates.items())
    tried = f"of {rates[0]:.2g} to {rates[-1]:.2g}" if len(rates) > 1 else "the only one tried"
    return [_render_tile("Learning rate", f"{decision.learning_rate:.2g}", "; ".join(filter(None, (own, tried))))]


def _render_tile(label: str, value: str, more: str) -> Markup:
    parts = (("label", label), ("value", value), ("more", more))
    return tag("div", *(tag("div", content, class_=name) for name, content in parts), class_="tile")


def render_use(data: ReportData, _: Markup) -> Markup:
    """The section that shows the trained adapter and the chosen ranks as code."""
    if not data.snippet:
        return Markup("")
    folder = data.final.adapter_folder if data.final else None
    trained = [tag("p", "The trained adapter: ", tag("code", folder), ".")] if folder else []
    rates = format_rates(data.decision.setting)
    sentence = f"The same ranks in a training script of your own{f', with {join_words(rates)}' if rates else ''}:"
    code = tag("div", tag("pre", tag("code", data.snippet.strip())), class_="copied")
    return section("use", "Use it", *trained, tag("p", sentence), code)


def render_parts(data: ReportData, _: Markup) -> Markup:
    """The section about the parts of the model."""
    dead = sum(len(part.linears) - len(part.alive) for part in data.info.parts)
    sentences = [f"{data.info.architecture} has {abbreviate_count(data.info.num_parameters)} parameters."]
    if dead:
        sentences.append(
            f"{pluralise(dead, 'linear layer')} got no gradient in a probe (dead) and will not be adapted."
        )
    if data.info.unlabelled:
        sentences.append(
            f"{pluralise(len(data.info.unlabelled), 'linear layer')} outside all parts will not be adapted."
        )
    warnings = bullets(data.info.warnings) if data.info.warnings else Markup("")
    return section("parts", "The parts", tag("p", " ".join(sentences)), tables.build_parts_table(data), warnings)


def render_curves(data: ReportData, charts: Markup) -> Markup:
    """The section with the learning curves of each part."""
    if not charts:
        return Markup("")
    groups = group_runs(data)
    any_alone = any(runs for name, runs in groups.items() if name != JOINT)
    sentences = ["Each part was adapted alone to measure how fast it learns."] if any_alone else []
    sentences += [f"Runs of several parts show how {data.candidate_noun}s compare."] if groups[JOINT] else []
    return section("curves", "How the parts learn", tag("p", " ".join(sentences)), charts)


def render_convergence(data: ReportData, charts: Markup) -> Markup:
    """The section about Law-C: how long each part learns, by rank."""
    closed_forms = checklist.render_closed_forms(data.decision.closed_forms)
    if not charts and not closed_forms:
        return Markup("")
    introduction = (
        "Law-C, the convergence law, describes how many examples a part needs to converge at each rank. Lines are the "
        "fitted laws, bands their 90 % bootstrap intervals."
    )
    more = collapse("The balanced ranks in closed form", closed_forms) if closed_forms else Markup("")
    return section("laws", "How long they learn", tag("p", introduction), charts, more)


def render_allocations(data: ReportData, charts: Markup) -> Markup:
    """The section about the candidates: how much each choice matters, and a map of their expected losses."""
    title = "Which ranks and learning rate" if data.searches_rates else "Which ranks together"
    effects = tables.build_effects_table(data) if data.decision.effects else Markup("")
    return section("map", title, effects, charts) if effects or charts else Markup("")


def render_final_run(data: ReportData, charts: Markup) -> Markup:
    """The section about the final run of the choice."""
    if data.final is None:
        return section("final", "The final run", tag("p", "It has not been made yet."))
    return section("final", "The final run", tables.build_results_table(data), charts)


def render_cost(data: ReportData, charts: Markup) -> Markup:
    """The section that compares the cost of the search with that of a grid."""
    spent = compute_calibration_spending(data)
    sentence = f"Costs are counted in full runs. A full run trains one {data.candidate_noun} to the end."
    if spent.runs == 0:
        sentence += " Nothing was measured before the decision."
    return section(
        "cost", "What it cost", tag("p", sentence), charts, collapse("Numbers", tables.build_cost_table(data))
    )


def render_candidates(data: ReportData, _: Markup) -> Markup:
    """The section that lists every candidate and why it was kept or dropped."""
    number = len(data.decision.candidates)
    dropped = sum(candidate.status == "dropped" for candidate in data.decision.candidates)
    sentence = f"{pluralise(number, data.candidate_noun)}: {dropped} dropped, {number - dropped - 1} kept, one chosen."
    worst = max((c.imbalance.value for c in data.decision.candidates if c.imbalance is not None), default=math.nan)
    if not math.isnan(worst):
        sentence += " Imbalance is the ratio of the parts' convergence times (1 is balanced); "
        sentence += f"here it goes up to {format_number(math.exp(worst))}."
    words = collapse("The strategy's own words", tag("p", make_sentence(data.decision.summary)))
    table = collapse("Every candidate with its reason", tables.build_candidates_table(data))
    return section("candidates", "All candidates", tag("p", sentence), words, table)


def render_laws_in_detail(data: ReportData, charts: Markup) -> Markup:
    """The section with everything that is needed to judge the laws."""
    if not data.decision.laws:
        sentence = describe_unfitted_law(data)
        return section(
            "checklist",
            "The laws in detail",
            tag("p", sentence),
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
    """The section with the assumptions of the decision and what to run next to make it more certain."""
    decision = data.decision
    assumed = [tag("h3", "Assumed"), bullets(map(make_sentence, decision.assumptions))] if decision.assumptions else []
    ahead = (
        [tag("h3", "What to run next"), bullets(map(make_sentence, decision.next_steps))] if decision.next_steps else []
    )
    return section("next", "Assumptions and next steps", *assumed, *ahead) if assumed or ahead else Markup("")


def render_details(data: ReportData, _: Markup) -> Markup:
    """The section with the data, the versions and the whole spec."""
    versions = "\n".join(f"{name} {version}" for name, version in data.versions.items())
    return section(
        "details",
        "Details",
        tables.build_data_table(data),
        collapse("Versions and device", tag("pre", f"device {data.device or 'not recorded'}\n{versions}".strip())),
        collapse("The whole spec", tag("pre", tag("code", data.spec.to_json()))),
    )


def render_footer(data: ReportData) -> Markup:
    """The foot of the page, which names the study and the unit of losses."""
    return tag(
        "footer",
        f"Study {data.spec.digest()}. Losses are the mean cross-entropy on held-out rows, in nats per answer token.",
    )
