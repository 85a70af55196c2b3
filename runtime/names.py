"""Names of actors: validated once, at the door, and never again."""

from __future__ import annotations

import unicodedata

from greenroom.runtime.errors import InvalidRequest

MAX_NAME_LENGTH = 128
PUNCTUATION = frozenset("._-:@+~")


def _illegal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="name", code="invalid_name")


def validate_name(name: str) -> str:
    """The name in NFC: letters, marks and digits of any script, and ``. _ - : @ + ~``.

    1 to 128 characters after normalisation, not only dots (a path's ``.`` and ``..``); nothing
    invisible, no space, no path separator. Raises InvalidRequest with param ``name``.
    """
    if len(name) > 4 * MAX_NAME_LENGTH:
        raise _illegal(f"A name has at most {MAX_NAME_LENGTH} characters.")
    name = unicodedata.normalize("NFC", name)
    if not name:
        raise _illegal("A name cannot be empty.")
    if len(name) > MAX_NAME_LENGTH:
        raise _illegal(f"A name has at most {MAX_NAME_LENGTH} characters.")
    for character in name:
        if character in PUNCTUATION:
            continue
        category = unicodedata.category(character)
        if category[0] not in "LM" and category != "Nd":
            raise _illegal(
                f"A name cannot contain U+{ord(character):04X}: use letters, digits and "
                + " ".join(sorted(PUNCTUATION))
            )
    if unicodedata.category(name[0])[0] == "M" or not name.strip("."):
        raise _illegal("A name cannot start with a combining mark or consist of dots only.")
    return name
