"""Names of points beside each other."""

from hypothesis import given
from hypothesis import strategies as st

from marslora.report.figures._labels import POSITIONS, locate_on_axis, make_box, measure_overlap, pad_range, place_names

SHARES = st.floats(0.1, 0.9)


def test_a_name_alone_stands_above_its_point():
    assert place_names([(0.5, 0.5)], ["mars"]) == ["top center"]


def test_near_points_have_their_names_apart():
    points, names = [(0.5, 0.5), (0.5, 0.52), (0.52, 0.5)], ["uniform", "eva", "dora"]
    boxes = [
        make_box(x, y, POSITIONS[position], 0.018 * len(name))
        for (x, y), name, position in zip(points, names, place_names(points, names), strict=True)
    ]
    assert all(measure_overlap(a, b) == 0 for number, a in enumerate(boxes) for b in boxes[:number])


def test_a_name_at_the_edge_stays_inside():
    assert place_names([(0.99, 0.5)], ["differential rates"]) == ["middle left"]


@given(st.lists(st.tuples(SHARES, SHARES), max_size=6))
def test_every_point_has_a_position(points):
    found = place_names(points, ["name"] * len(points))
    assert len(found) == len(points) and set(found) <= set(POSITIONS)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5))
def test_margins_hold_every_value(values):
    ends = pad_range(values)
    assert all(0 < locate_on_axis(value, ends) < 1 for value in values)
