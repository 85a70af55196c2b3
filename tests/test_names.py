import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import MAX_NAME_LENGTH, validate_name


@pytest.mark.parametrize(
    "name", ["alice", "ns:Alice@host", "a.b-c_d+e~f", "Zoë", "爱丽丝", "हिन्दी", "7"]
)
def test_accepts_letters_marks_digits_and_some_punctuation(name: str) -> None:
    assert validate_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "\x00",
        "a\u200bb",
        "\u0301a",
        "a\u202eb",
        "a*",
        "½",
    ],
)
def test_refuses_and_names_the_parameter(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate_name(name)
    assert caught.value.param == "name"


def test_one_name_per_normal_form() -> None:
    assert validate_name("e\u0301") == validate_name("\u00e9") == "\u00e9"


def test_length_is_counted_after_normalisation() -> None:
    assert len(validate_name("e\u0301" * MAX_NAME_LENGTH)) == MAX_NAME_LENGTH
    for length in (MAX_NAME_LENGTH + 1, 10_000_000):
        with pytest.raises(InvalidRequest):
            validate_name("a" * length)


@given(st.text(max_size=200))
def test_what_passes_passes_again_unchanged(name: str) -> None:
    try:
        valid = validate_name(name)
    except InvalidRequest:
        return
    assert validate_name(valid) == valid
    assert "/" not in valid
    assert valid.isprintable()
