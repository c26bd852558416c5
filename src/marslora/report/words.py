"""State the verdict of a study in sentences, for the head of the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from marslora.core.decision import LEVEL
from marslora.report.candidates import (
    find_training_probability,
    list_optional_towers,
)
from marslora.report.data import (
    CONVERGENCE,
    PERFORMANCE,
    ReportData,
    compute_calibration_spending,
    compute_final_spending,
    compute_grid_spending,
    compute_total_spending,
)
from marslora.report.gain import describe_gain, describe_outcome
from marslora.report.numbers import (
    SPACE,
    abbreviate_count,
    format_count,
    format_duration,
    format_full_runs,
    format_loss,
    format_percent,
    format_rates,
    format_run_count,
    format_setting,
    join_words,
    pluralise,
)


@dataclass(frozen=True)
class Notice:
    """Something a reader must not miss."""

    level: Literal["bad", "care"]
    title: str
    text: str


OPENINGS = {
    "indistinguishable": "No clear winner; a good choice",
    "alike": "Nothing that was searched matters much; the cheapest will do",
    "unmeasured": "Too little was measured to be sure; the best guess",
}
"""How the choice is introduced, by the verdict; a clear one needs no introduction."""


def write_headline(data: ReportData) -> str:
    """The verdict in a sentence or two without the last full stop: towers first, then ranks and learning rate."""
    if data.decision.verdict == "fallback":
        return f"Undecided; a fallback: {_name_choice(data, data.searched)}"
    towers = list_optional_towers(data)
    left = [part for part in towers if not data.decision.chosen.get(part)]
    chosen = _name_choice(data, [part for part in data.searched if part not in left])
    sentences = [sentence for part in towers if (sentence := _describe_tower(data, part))]
    if data.decision.verdict in OPENINGS:
        sentences.append(f"{OPENINGS[data.decision.verdict]}: {chosen or 'leave it so'}")
    elif chosen:
        sentences.append(f"Give {chosen}")
    return ". ".join(sentences)


def _name_choice(data: ReportData, parts: Sequence[str]) -> str:
    """``vision rank 16 and language rank 64, at learning rate 0.0016``; the rate is named if it was chosen."""
    ranks = join_words([f"{part} rank {data.decision.chosen.get(part)}" for part in parts])
    rates = format_rates(data.decision.setting)
    return ", at ".join(filter(None, (ranks, ", ".join(rates))))


def _describe_tower(data: ReportData, part: str) -> str:
    """Say whether a tower that could have been left as it is should be trained; empty if nothing shows that it pays."""
    chance, is_trained = find_training_probability(data, part), bool(data.decision.chosen.get(part))
    advice = f"Train the {part} tower" if is_trained else f"Leave the {part} tower as it is"
    if chance is None:
        return "" if is_trained else advice
    sure = chance if is_trained else 1 - chance
    if any(each.knob == f"training {part}" and each.verdict == "unresolved" for each in data.decision.effects):
        return f"{advice}, though that is open (it pays with probability {format_percent(chance)})"
    if sure >= LEVEL:
        return f"{advice} (probability {format_percent(sure)})"
    left = "" if is_trained else "; it is left as it is"
    return f"Training the {part} tower pays with probability {format_percent(chance)}{left}"


def describe_certainty(data: ReportData) -> str:
    """Say how certain the choice is, in one or two sentences."""
    chosen, decision = data.chosen, data.decision
    if decision.verdict == "fallback":
        why = "The laws could not decide" if decision.laws else "No law was fitted"
        return f"{why}, so there is no probability of being best."
    if decision.verdict in OPENINGS:
        regret = chosen.expected_regret
        more = (
            ""
            if regret is None
            else f" The best one, whichever it is, is expected to end {format_loss(regret)} nats lower."
        )
        number, verb = len(decision.plausible), "holds" if len(decision.plausible) == 1 else "together hold"
        held = f"{number} of {pluralise(len(decision.candidates), data.candidate_noun)} {verb} 90{SPACE}% of the"
        return f"{held} probability of being best. The chosen one has {describe_size(data)}.{more}"
    if chosen.p_best is None:
        return "It had the lowest validation loss observed; this strategy does not estimate how sure that is."
    all_of_them = pluralise(len(decision.candidates), data.candidate_noun)
    known = f"It is the best of {all_of_them} with probability {format_percent(chosen.p_best)}"
    others = len(decision.plausible) - 1
    if others < 1:
        return known + "."
    names = [format_setting(each, data.searched) for each in decision.plausible if each != decision.setting][:3]
    more = "" if others <= 3 else f" and {others - 3} more"
    rest = f"{'; '.join(names)}{more}"
    return f"{known}; the other{'s' if others > 1 else ''} that cannot be ruled out: {rest}."


def describe_size(data: ReportData) -> str:
    """State the number of trainable parameters of the choice and of the largest candidate."""
    mine = data.num_trainable(data.decision.chosen)
    most = max(data.num_trainable(candidate.allocation) for candidate in data.decision.candidates)
    return f"{abbreviate_count(mine)} trainable parameters (the largest has {abbreviate_count(most)})"


def describe_effects(data: ReportData) -> list[str]:
    """Say which choices matter and which do not, one sentence each; empty if the strategy does not measure that."""
    matter = [
        f"{effect.knob} ({format_loss(effect.nats.value)} nats between {effect.best} and {effect.worst})"
        for effect in data.decision.effects
        if effect.verdict == "matters"
    ]
    alike = [effect.knob for effect in data.decision.effects if effect.verdict == "does not matter"]
    sentences = [f"What matters: {join_words(matter)}."] if matter else []
    return [*sentences, f"What does not matter: {join_words(alike)}."] if alike else sentences


def describe_cost(data: ReportData) -> str:
    """State what the search cost in full runs and time, and what training every candidate would cost."""
    first, last = compute_calibration_spending(data), compute_final_spending(data)
    total, grid = compute_total_spending(data), compute_grid_spending(data)
    took = "" if total.seconds is None else f" and {format_duration(total.seconds)}"
    ending = "the final run" if data.final else "the final run, which has not been made yet"
    verb = "cost" if data.final else "costs"
    sentence = (
        f"It {verb} {format_full_runs(total.runs)}{took}: {format_run_count(first.runs)} for calibration, "
        f"{format_run_count(last.runs)} for {ending}."
    )
    if data.num_candidates == 1:
        return sentence
    estimated = "" if grid.seconds is None else f" and about {format_duration(grid.seconds)}"
    number = pluralise(data.num_candidates, data.candidate_noun)
    return f"{sentence} Training all {number} would cost {format_full_runs(grid.runs)}{estimated}."


def describe_unfitted_law(data: ReportData) -> str:
    """What decided if the study fitted no law of its own: the strategy's predictions, or what was observed."""
    name = data.decision.strategy
    if data.chosen.predicted_loss is None:
        return f"The strategy {name} fits no law: it compares what was observed."
    drawn = "the map, the learning rates and P(best) above draw"
    return (
        f"No parameters of a law were fitted to this study. The choice is made by what the strategy {name} predicts of "
        f"every {data.candidate_noun}, which {drawn} with its {format_percent(LEVEL)} intervals."
    )


def explain_terms(data: ReportData) -> str:
    """Explain the terms of the page that a reader may not know, in the order in which they occur."""
    sentences = [
        f"A full run trains one {data.candidate_noun} to the end, on {format_count(data.full_examples)} examples; "
        "costs are counted in full runs. Losses are in nats per answer token: the mean negative natural logarithm of "
        "the probability that the model gives to a token of the right answer."
    ]
    if data.chosen.p_best is not None:
        if data.searches_rates:
            sentences.append("A setting is a rank for every part and a learning rate.")
        named = "a setting" if data.searches_rates else "an allocation"
        sentences.append(
            f"P(best) is the probability that {named} has the lowest loss of all. Those that together hold "
            f"90{SPACE}% of it cannot be ruled out; nothing else on this page decides which can be told apart."
        )
    kinds = {law.law for law in data.decision.laws}
    if CONVERGENCE in kinds:
        sentences.append("Law-C, the convergence law, gives the examples that a part needs to converge at a rank.")
    if PERFORMANCE in kinds:
        sentences.append("Law-P, the performance law, gives the loss of an allocation after a number of examples.")
    return " ".join(sentences)


def collect_notices(data: ReportData) -> list[Notice]:
    """The notices about problems, fallbacks, failed or partly determined laws, a choice at the edge of what was
    searched, failed runs and skipped rows; worst first."""
    notices = [Notice("bad", "Not to be relied on", problem) for problem in data.decision.problems]
    if data.decision.verdict == "fallback":
        what = data.decision.fallback or data.decision.summary
        notices.append(Notice("bad", "This choice is a fallback", make_sentence(what)))
    elif data.decision.fallback:
        notices.append(Notice("care", "Some measurements could not be used", make_sentence(data.decision.fallback)))
    for law in data.decision.laws:
        title = f"The {law.law} law of {law.subject}"
        reason = make_sentence(law.message or "no reason was given")
        if law.status == "failed":
            notices.append(Notice("bad", f"{title} failed", reason))
        elif law.status == "unidentified":
            notices.append(Notice("care", f"{title} is only partly determined", reason))
    if data.unreached:
        notices.append(Notice("care", "Not every part can learn from these rows", data.unreached))
    if data.decision.corners:
        title = "The choice lies at the edge of what was searched"
        notices.append(Notice("care", title, " ".join(data.decision.corners)))
    bad = [run for run in data.runs if run.status in ("diverged", "failed")]
    if bad:
        names = join_words([f"{run.member.id} ({run.status})" for run in bad[:6]])
        more = "" if len(bad) <= 6 else f", and {len(bad) - 6} more"
        notices.append(
            Notice(
                "care",
                f"{format_count(len(bad))} of {format_count(len(data.runs))} runs did not end well",
                f"{names}{more}.",
            )
        )
    if data.summary is not None and data.summary.num_bad:
        first = f" The first: {data.summary.bad_rows[0]}" if data.summary.bad_rows else ""
        notices.append(
            Notice("care", f"{format_count(data.summary.num_bad)} rows could not be used", f"They were skipped.{first}")
        )
    if data.final is not None and data.final.validation_loss > data.final.base_validation_loss:
        notices.append(
            Notice(
                "bad",
                "Training did not help",
                "The final run ended with a higher validation loss than the untrained model.",
            )
        )
    return sorted(notices, key=lambda notice: notice.level != "bad")


def make_sentence(words: str) -> str:
    """Make a sentence of a phrase: a capital at the start (unless that is a symbol), a full stop at the end."""
    words = words.strip()
    first = words.partition(" ")[0]
    start = words[:1].upper() if first.isalpha() and len(first) > 1 else words[:1]
    return start + words[1:] + ("" if words[-1:] in (".", "!", "?", "") else ".")


def write_summary_lines(data: ReportData) -> list[str]:
    """The lines that the command line prints when a search ends: the choice, what came of it, and then the rest."""
    lines = [
        *data.decision.problems,
        write_headline(data) + ".",
        *describe_outcome(data),
        describe_certainty(data),
        *describe_effects(data),
        *describe_gain(data),
        describe_cost(data),
    ]
    notices = [notice for notice in collect_notices(data) if notice.text not in data.decision.problems]
    lines += [f"{notice.title}: {notice.text}" for notice in notices]
    if data.final is not None:
        lines.append(f"Adapter: {data.final.adapter_folder} ({abbreviate_count(data.final.num_trainable)} parameters)")
    return lines
