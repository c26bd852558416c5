"""Members share a pack where they can, and packs are shared out among workers."""

from hypothesis import given
from hypothesis import strategies as st

from marslora.core.allocation import Allocation
from marslora.core.packs import describe_members, group_members, split_groups
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec


def member(name, allocation, data=100, order=0):
    return MemberSpec(id=name, allocation=allocation, data_examples=data, until_examples=64, order_seed=order)


def test_members_share_a_pack_when_they_share_batches_and_frozen_parts():
    wide = Allocation.of(vision=4, language=8)
    members = [
        member("a", wide),
        member("b", wide.replace(vision=16)),
        member("c", wide.keep_only("language")),
        member("d", wide, data=50),
        member("e", wide, order=1),
        member("f", wide),
    ]
    started = Run(member=members[5], status="complete", examples=(0, 32), validation_loss=(2.0, 1.0))
    groups = [{m.id for m in group} for group in group_members(members, [started])]
    assert groups == [{"a", "b"}, {"c"}, {"d"}, {"e"}, {"f"}]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 6))
def test_every_worker_has_a_pack_and_every_member_is_in_one(sizes, num_workers):
    wide = Allocation.of(vision=4, language=8)
    groups = [tuple(member(f"{g}.{n}", wide) for n in range(size)) for g, size in enumerate(sizes)]
    packs = split_groups(groups, num_workers)
    assert sorted(m.id for pack in packs for m in pack) == sorted(m.id for group in groups for m in group)
    assert all(len({m.id.partition(".")[0] for m in pack}) == 1 for pack in packs)
    assert len(packs) >= min(num_workers, sum(sizes))
    assert num_workers > 1 or len(packs) == len(groups)


def test_members_are_described_by_what_they_are_for():
    wide = Allocation.of(vision=4, language=8)
    found = [member("a", wide), member("b", wide).model_copy(update={"purpose": "candidate run"})]
    assert describe_members(found) == "1 x measurement, 1 x candidate run"
