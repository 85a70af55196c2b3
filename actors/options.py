"""The options of one generation, spelled alike at every door."""

import msgspec

from greenroom.actors.fields import within
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import Priority, Sampling

MAX_STOPS = 4
MAX_STOP_LENGTH = 1024  # a longer one would only cost time: nothing generated matches it
MAX_TOP_K = 1 << 31
MAX_SEED = (1 << 63) - 1
MAX_REPETITION = 10.0
MAX_BIASES = 1024
MAX_TOKENS = 1 << 31  # no window is as large


class Options(msgspec.Struct, kw_only=True):
    """How long and how to generate, as callers send it; base of each door's request."""

    max_tokens: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    priority: Priority | None = None


def sampling(options: Options) -> Sampling:
    """The options that shape the draw; raises ``InvalidRequest`` for a value out of range."""
    within("temperature", options.temperature, 0.0, 2.0)
    within("top_p", options.top_p, 0.0, 1.0, above=True)
    within("min_p", options.min_p, 0.0, 1.0)
    # -1 is how some clients say "no limit".
    within("top_k", options.top_k, -1, MAX_TOP_K)
    within("seed", options.seed, -MAX_SEED - 1, MAX_SEED)
    within("presence_penalty", options.presence_penalty, -2.0, 2.0)
    within("frequency_penalty", options.frequency_penalty, -2.0, 2.0)
    within("repetition_penalty", options.repetition_penalty, 0.0, MAX_REPETITION, above=True)
    return Sampling(
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=max(options.top_k or 0, 0),
        min_p=options.min_p or 0.0,
        seed=options.seed,
        presence_penalty=options.presence_penalty or 0.0,
        frequency_penalty=options.frequency_penalty or 0.0,
        repetition_penalty=options.repetition_penalty or 1.0,
        logit_bias=_biases(options.logit_bias or {}),
    )


def _biases(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """Token ids and what is added to their logits; raises ``InvalidRequest`` for anything else."""
    if len(given) > MAX_BIASES:
        raise InvalidRequest(
            f"logit_bias takes at most {MAX_BIASES} tokens.",
            param="logit_bias",
            code="out_of_range",
        )
    for token, bias in given.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise InvalidRequest(
                f"logit_bias goes by token ids, and {token[:40]!r} is none.",
                param="logit_bias",
                code="invalid_value",
            )
        within("logit_bias", bias, -100.0, 100.0)
    return tuple(sorted((int(token), bias) for token, bias in given.items()))


def stops(options: Options) -> tuple[str, ...]:
    """At most four; raises ``InvalidRequest`` for more, and for an empty or a very long one."""
    given = [options.stop] if isinstance(options.stop, str) else options.stop or []
    if len(given) > MAX_STOPS:
        raise InvalidRequest(
            f"stop takes at most {MAX_STOPS} strings.", param="stop", code="out_of_range"
        )
    if any(len(each) > MAX_STOP_LENGTH for each in given):
        raise InvalidRequest(
            f"stop strings have at most {MAX_STOP_LENGTH} characters.",
            param="stop",
            code="out_of_range",
        )
    if "" in given:
        raise InvalidRequest("stop must not be empty.", param="stop", code="invalid_value")
    return tuple(given)


def token_limit(param: str, value: int | None) -> int | None:
    """``value`` checked to be at least 1, or None for as many as the window leaves."""
    within(param, value, 1, MAX_TOKENS)
    return value
