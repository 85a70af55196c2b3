"""The hot tier: never over budget, least recently used first out."""

from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.codec import Payload
from greenroom.runtime.hot import HotPayloads, room_for_copies


def payload(num_bytes: int) -> Payload:
    return Payload("float/1", 1, {"x": np.zeros(num_bytes, np.uint8)})


@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "drop", "shed"]), st.integers(0, 6), st.integers(1, 60)
        )
    ),
)
def test_it_behaves_like_an_ordered_dictionary_with_a_budget(
    budget: int, actions: list[tuple[str, int, int]]
) -> None:
    hot = HotPayloads(budget)
    model: OrderedDict[str, int] = OrderedDict()
    for action, number, size in actions:
        name = str(number)
        if action == "put":
            hot.put(name, payload(size))
            model.pop(name, None)
            model[name] = size
            while sum(model.values()) > budget:
                model.popitem(last=False)
        elif action == "get":
            found = hot.get(name)
            assert (found is not None) == (name in model)
            if name in model:
                model.move_to_end(name)
        elif action == "shed":
            wanted = max(0, sum(model.values()) - size)
            hot.shed(size)
            while sum(model.values()) > wanted:
                model.popitem(last=False)
        else:
            hot.drop(name)
            model.pop(name, None)
        assert hot.num_bytes == sum(model.values()) <= budget
        assert len(hot) == len(model)


@given(st.integers(0, 100), st.integers(0, 100))
def test_copies_get_what_encoded_segments_leave(budget: int, hot: int) -> None:
    room = room_for_copies(budget, hot)
    assert room >= 0
    assert room + min(hot, budget) == budget
