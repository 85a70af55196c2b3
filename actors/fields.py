"""Decoding a caller's JSON into typed structs, with errors that name the field."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from greenroom.runtime.errors import InvalidRequest

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
Number = TypeVar("Number", int, float)

MAX_DEPTH = 100
"""How deep what is not typed may be nested."""

# msgspec tells the path of a bad value only inside its message; this is the one place to read it.
_PATH = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)


def decode(body: bytes | str, kind: type[T]) -> T:
    """``body`` as ``kind``; raises ``InvalidRequest`` with the field's path in ``param``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        what = match["what"] if match else str(error)
        path = match["path"] if match else None
        raise InvalidRequest(
            f"{path}: {what}" if path else f"The body is not as expected: {what}.",
            param=path or None,
            code="invalid_type",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None


def decode_known(body: bytes | str, kind: type[S]) -> S:
    """As ``decode``, and raises ``InvalidRequest`` for a field that ``kind`` does not have."""
    refuse_unknown(decode(body, dict[str, msgspec.Raw]), kind.__struct_fields__)
    return decode(body, kind)


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raise ``InvalidRequest`` for the first name in ``given`` that nobody knows."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InvalidRequest(
                f"Unknown parameter: {name}.{hint}", param=name, code="unknown_parameter"
            )


def shallow(param: str, value: T) -> T:
    """The value, which may be of any form; raises ``InvalidRequest`` if it is nested too deeply for
    templates and grammars, which follow it by recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return value
        level = inner
    raise InvalidRequest(
        f"{param} is nested more than {MAX_DEPTH} deep.", param=param, code="out_of_range"
    )


def within(
    param: str,
    value: Number | None,
    low: Number,
    high: Number,
    *,
    above: bool = False,
) -> None:
    """Raise ``InvalidRequest`` unless None or from ``low`` (``above``: excluded) to ``high``."""
    if value is None:
        return
    if value > high or value < low or (above and value == low):
        bounds = f"greater than {low}" if above else f"at least {low}"
        raise InvalidRequest(
            f"{param} must be {bounds} and at most {high}.", param=param, code="out_of_range"
        )


def at_least(param: str, value: int | None, low: int) -> None:
    """Raise ``InvalidRequest`` when ``value`` is given and below ``low``."""
    if value is not None and value < low:
        raise InvalidRequest(f"{param} must be at least {low}.", param=param, code="out_of_range")
