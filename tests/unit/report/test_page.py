"""The page: complete, self-contained, safe with any names."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from marslora.core.allocation import Allocation
from marslora.core.errors import StudyError
from marslora.core.runs import Cost
from marslora.report import page, tables
from marslora.report.data import gather_data
from marslora.report.figures._style import Chart
from marslora.report.markup import escape
from marslora.report.words import collect_notices, make_sentence, write_headline
from marslora.store.study import Study
from tests.unit.report import example_studies, simulated_runs
from tests.unit.report.plotly_figures import parse_figure

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script>"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Reader(HTMLParser):
    """Collects tags, ids, visible text and figures, and checks that every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.words, self.figures = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append((tag, values))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, values = self.open[-1] if self.open else ("", {})
        if values.get("data-figure"):
            self.figures[values["data-figure"]] = json.loads(text)
        elif tag not in ("script", "style"):
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(data):
    return Reader(str(page.render_body(data)))


def test_the_page_says_the_verdict_first_and_every_law_and_reason(data):
    reader = read(data)
    assert reader.text.index(" ".join(write_headline(data).split())) < 200
    for candidate in data.decision.candidates:
        assert str(escape(candidate.reason)) in page.render_body(data)
    for law in data.decision.laws:
        assert f"{law.law.capitalize()} law of {law.subject}" in reader.text
    for words in (*data.decision.assumptions, *data.decision.next_steps, data.decision.summary):
        assert make_sentence(words) in reader.text


def test_every_candidate_has_a_row(data):
    body = str(page.render_body(data))
    table = body[body.index('<table class="sortable">') :]
    rows = re.findall(r"<tr.*?</tr>", table[: table.index("</table>")])[1:]
    assert len(rows) == len(data.decision.candidates)
    cells = [tuple(int(rank) for rank in re.findall(r'<td class="n">(\d+)</td>', row)) for row in rows]
    expected = {tuple(c.allocation[part] for part in data.searched) for c in data.decision.candidates}
    assert {ranks[: len(data.searched)] for ranks in cells} == expected


def test_the_learning_rate_is_in_the_head_and_in_the_tables():
    data = example_studies.make_example("rates")
    text = read(data).text
    assert "Learning rate 0.00085 of 0.00042 to 0.0068" in text
    assert "The same ranks in a training script of your own, with learning rate 0.00085:" in text
    assert "learning rates (0.00042, 0.00085, 0.0017, 0.0034, 0.0068)" in text
    assert "the learning rate of vision, apart from that of the others" in text
    body = str(page.render_body(data))
    assert body.count("0.00085, vision 0.0025") >= 9
    parts = str(tables.build_parts_table(data))
    assert parts.count("0.00085") == 3 and "learning rate" in parts


def test_the_page_stands_alone(data, tmp_path):
    path = page.write_page(data, tmp_path / "report.html")
    text = path.read_text()
    assert path.stat().st_size < 1_900_000
    own = text.replace(page._read_file(page.CHART_SCRIPT), "")
    assert not re.search(r"https?://", own)
    assert "default-src 'none'" in own
    assert not [tag for tag, values in Reader(own).tags if "src" in values or tag in ("link", "iframe", "img")]


def test_anchors_are_unique_and_links_lead_somewhere(data):
    reader = read(data)
    assert len(reader.ids) == len(set(reader.ids))
    links = [values["href"] for tag, values in reader.tags if tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(reader.ids)
    assert set(reader.figures) <= set(reader.ids)


def test_every_figure_is_valid_and_has_a_sentence(data):
    reader = read(data)
    assert len(reader.figures) >= 6
    for name, figure in reader.figures.items():
        assert parse_figure(figure).layout.xaxis.title.text, name
    assert str(page.render_body(data)).count("<figcaption>") == len(reader.figures)


def test_every_colour_role_is_in_both_themes(data):
    css = page._read_file("page.css")
    light, dark = css.split("prefers-color-scheme: dark", 1)
    figures = json.dumps(read(data).figures)
    for role in set(re.findall(r'"@([a-z]+[0-9]?)(?:/[0-9.]+)?"', figures)):
        assert re.search(rf"--{role}: #[0-9a-f]{{6}};", light), role
        assert re.search(rf"--{role}: #[0-9a-f]{{6}};", dark), role


def test_hostile_names_are_only_text(clear):
    info = clear.info.model_copy(update={"architecture": HOSTILE, "warnings": (HOSTILE,)})
    first, *others = clear.decision.candidates
    decision = clear.decision.model_copy(
        update={
            "summary": HOSTILE,
            "fallback": HOSTILE,
            "assumptions": (HOSTILE,),
            "candidates": (first.model_copy(update={"reason": HOSTILE}), *others),
        }
    )
    hostile = replace(clear, info=info, decision=decision, snippet=HOSTILE, device=HOSTILE, versions={HOSTILE: HOSTILE})
    reader = read(hostile)
    assert not [values for tag, values in reader.tags if tag == "img" or "onerror" in values]
    assert reader.text.count(HOSTILE) >= 5
    assert "</script>&" not in str(page.render_body(hostile))


def test_a_figure_cannot_end_its_script():
    chart = Chart(name="a", title="t", traces=[{"name": HOSTILE}], layout={}, caption="c")
    written = str(page.render_chart(chart))
    source = written[written.index('data-figure="plot-a">') + 21 : written.index("</script>")]
    assert not {"<", ">", "&"} & set(source)
    reader = Reader(written)
    assert reader.figures["plot-a"]["data"] == [{"name": HOSTILE}]


def test_hostile_part_names_are_only_text():
    name = "<b>v</b>"
    ladders = {name: example_studies.LADDER, "language": example_studies.LADDER}
    info = simulated_runs.model(simulated_runs.part(name, 2, 8), simulated_runs.part("language", 2, 8))
    calm = example_studies.make_example("clear")

    def renamed(allocation):
        return Allocation.of({name: allocation["vision"], "language": allocation["language"]})

    candidates = tuple(
        each.model_copy(update={"allocation": renamed(each.allocation)}) for each in calm.decision.candidates
    )
    decision = calm.decision.model_copy(
        update={"chosen": renamed(calm.decision.chosen), "candidates": candidates, "plausible": (), "laws": ()}
    )
    spec = calm.spec.model_copy(update={"space": calm.spec.space.of(ladders)})
    data = replace(calm, spec=spec, info=info, decision=decision, runs=(), uniform=None)
    reader = read(data)
    assert ("b", {}) not in reader.tags
    assert "<b>v</b> rank" in reader.text
    assert reader.figures["plot-allocations"]["layout"]["yaxis"]["title"]["text"] == "&lt;b&gt;v&lt;/b&gt; rank"


def test_a_fallback_and_a_failed_law_are_said_at_the_top():
    data = example_studies.make_example("failed")
    body = str(page.render_body(data))
    head = body[: body.index("</header>")]
    titles = [notice.title for notice in collect_notices(data)]
    assert titles[:2] == ["This choice is a fallback", "The convergence law of vision failed"]
    for title in titles:
        assert title in head
    assert "only 1 of 8 runs converged" in head.lower()
    assert "badge failed" in body


def test_only_panels_that_are_there_are_announced(clear):
    assert "Each part was adapted alone" in read(clear).text
    joint = [run for run in clear.runs if len(run.member.allocation.active) > 1]
    assert "Each part was adapted alone" not in read(replace(clear, runs=joint)).text
    assert "How the parts learn" not in read(replace(clear, runs=())).text


def test_a_study_folder_becomes_its_page(clear, tmp_path):
    from marslora.core.runs import MemberResult, Observation, Prepared

    with Study.create(tmp_path, clear.spec) as study:
        with pytest.raises(StudyError, match="no decision"):
            gather_data(study)
        prepared = Prepared(info=clear.info, data=clear.summary, device=clear.device, versions=dict(clear.versions))
        study.write("prepared.json", prepared, "x")
        study.write("decision.json", clear.decision, "x")
        study.write("final.json", clear.final, "x")
        study.write("uniform.json", clear.uniform, "x")
        (tmp_path / "exports" / "peft").mkdir(parents=True)
        (tmp_path / "exports" / "peft" / "lora_config.py").write_text(clear.snippet)
        run = clear.runs[0]
        study.trials.start(run.member)
        for examples, loss in zip(run.examples, run.validation_loss, strict=True):
            seen = Observation(member=run.member.id, examples=examples, metric="validation_loss", value=loss)
            study.trials.observe(seen)
        study.trials.finish(
            MemberResult(member=run.member.id, status="complete", examples=run.last_examples, cost=run.cost)
        )
        found = gather_data(study)
        assert found.runs == [run]
        assert found.decision.to_json() == clear.decision.to_json()  # some of its numbers are NaN
        at_home = {
            name: getattr(clear, name).model_copy(update={"adapter_folder": str(study.path(name, "adapter"))})
            for name in ("final", "uniform")
        }
        assert replace(found, runs=clear.runs, decision=clear.decision) == replace(clear, **at_home)
        assert page.write_report(study).decision.to_json() == clear.decision.to_json()
    assert write_headline(clear) in (tmp_path / "report.html").read_text()


def test_every_phase_has_its_flops():
    data = example_studies.make_example("clear")
    costs = {"convergence of vision": Cost(seconds=1.0, flops=1.5e9), "joint": Cost(seconds=2.0, flops=2.5e9)}
    runs = [
        run.model_copy(update={"member": run.member.model_copy(update={"purpose": purpose}), "cost": cost})
        for run, (purpose, cost) in zip(data.runs, costs.items(), strict=False)
    ]
    shown = str(tables.build_cost_table(replace(data, runs=runs, preparation=Cost(seconds=3.0, flops=4.25e9))))
    for text in ("preparation", "4.25e+09", "3.1e+12", "final run", "convergence of vision", "1.5e+09", "2.5e+09"):
        assert text in shown
