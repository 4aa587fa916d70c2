from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_gw.gateway.leaseindex import LeaseIndex
from cvmfs_gw.gateway.leasepath import LeasePath

paths = st.builds(
    lambda fqrn, names: LeasePath.parse(f"{fqrn}/{'/'.join(names)}"),
    st.sampled_from(["a.org", "b.org"]),
    st.lists(st.sampled_from(["x", "y", "xy"]), max_size=3),
)


@given(st.lists(st.tuples(st.booleans(), paths)), paths)
def test_against_a_list(steps: list[tuple[bool, LeasePath]], asked: LeasePath) -> None:
    index, model = LeaseIndex(), dict[LeasePath, str]()
    for number, (add, path) in enumerate(steps):
        if not add:
            index.remove(path)
            model.pop(path, None)
        elif path not in model:
            index.add(path, str(number))
            model[path] = str(number)
        assert sorted(index.overlapping(asked)) == sorted(t for p, t in model.items() if p.overlaps(asked))
        assert sorted(index.within(asked)) == sorted(t for p, t in model.items() if p.within(asked))
    for path in model:
        index.remove(path)
    assert not index._roots
