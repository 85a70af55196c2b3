"""The director's names for its children."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.director import child_name
from greenroom.runtime.names import MAX_NAME_LENGTH, validate_name
from greenroom.runtime.namespace import derive_namespace

names = st.text("ab1.:@", min_size=1, max_size=MAX_NAME_LENGTH).filter(lambda n: n.strip("."))
keys = st.builds(
    AgentKey, st.sampled_from(["", derive_namespace("a"), derive_namespace("b")]), names
)


@given(keys, keys)
def test_every_legal_name_is_a_child_of_its_own(one: AgentKey, two: AgentKey) -> None:
    assert validate_name(child_name(one)) == child_name(one)
    assert (child_name(one) == child_name(two)) == (one == two)


def test_the_longest_name_is_legal_with_a_key_too() -> None:
    long = AgentKey(derive_namespace("a"), "n" * MAX_NAME_LENGTH)
    other = AgentKey(derive_namespace("a"), "n" * (MAX_NAME_LENGTH - 1) + "m")
    assert validate_name(child_name(long)) != validate_name(child_name(other))
