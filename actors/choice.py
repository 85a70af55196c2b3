"""One answer on its way from the stage to the caller; a turn may ask for several."""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import msgspec
from llguidance import LLMatcher

from greenroom.actors.company import Company
from greenroom.actors.gpu_messages import Finish, Generate
from greenroom.actors.outbox import Outbox
from greenroom.runtime.channel import Channel
from greenroom.runtime.constraint import ForcedCalls, JsonAnswer
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.job import (
    Job,
    JobDone,
    JobEnded,
    JobEvent,
    JobProgress,
    JobStarted,
    JobTokens,
)
from greenroom.runtime.parts import BARE, Marks, Parts
from greenroom.runtime.records import (
    Alternative,
    FinishReason,
    Sampling,
    TextDelta,
    TokenLogprob,
    TurnEvent,
    TurnProgress,
    TurnRequest,
    TurnStarted,
)
from greenroom.runtime.text import Text
from greenroom.runtime.toolformat import Thinking, ToolFormat, forced_format

PROGRESS_S = 0.25
"""Between two words about how far a prompt has been read."""
_NEXT_SEED = 0xD1B54A32D192ED03  # odd, and not the step between a seed's own positions


class Terms(msgspec.Struct, frozen=True):
    """What a request asks of the form of its answers, and how they are read.

    ``calls`` is how calls are written, None to read none; ``matcher`` is to be copied, not used.
    """

    marks: Marks
    calls: ToolFormat | None
    thinking: Thinking | None
    matcher: LLMatcher | None
    sampling: Sampling
    notices: tuple[str, ...] = ()


def asks_much(request: TurnRequest) -> bool:
    """Whether the terms of a request take more than a look at it."""
    forms = request.constraint is not None or bool(request.tools)
    return forms or request.sampling.top_logprobs is not None


def terms(text: Text, request: TurnRequest, sampling: Sampling, prompt: str) -> Terms:
    """The terms of a request whose rendered prompt ends with ``prompt``.

    Takes a second for the first turn that needs the vocabulary: to be called off the event loop
    where the request ``asks_much``.
    Raises InvalidRequest for a schema that cannot be enforced.
    """
    marks = text.marks if request.prompt is None else BARE
    thinking = marks.thinking_after(prompt)
    calls = marks.calls if request.tools and request.may_call else None
    matcher = None
    if request.constraint is not None:
        if isinstance(request.constraint, ForcedCalls):
            calls = forced_format(marks.native)
        matcher = text.vocabulary.matcher(
            request.constraint, request.tools, calls or marks.calls, thinking
        )
    if request.tools and not request.may_call:
        # The prompt still tells of the tools, as it did before; only the mark of a call is closed.
        mark = text.encode(marks.calls.start)
        if len(mark) == 1:
            biases = (*sampling.logit_bias, (mark[0], -100.0))
            sampling = msgspec.structs.replace(sampling, logit_bias=biases)
    if sampling.top_logprobs is not None:
        text.vocabulary.utf8(0)
    return Terms(marks, calls, thinking, matcher, sampling, tuple(_notices(text, request)))


def _notices(text: Text, request: TurnRequest) -> Iterator[str]:
    """What the model cannot do of what is asked, or does in another way."""
    if request.tools and not text.template.traits.tools:
        yield (
            "tools_in_words: this model's template has no place for tools; they are described in "
            "the system prompt, and calls are written as <tool_call> JSON"
        )
    if request.tools and request.may_call and isinstance(request.constraint, JsonAnswer):
        yield "tools_not_called: the answer has a form, so no tool is called in this turn"
    effort = request.template_kwargs.get("reasoning_effort", "none")
    if effort not in ("none", "minimal") and text.marks.thinking is None:
        yield "no_reasoning: this model does not mark what it thinks; it answers at once"


def siblings(job: Job, agreed: Terms, uid: int, n: int) -> list[Job]:
    """The ``n`` jobs of one turn: the first, known as ``uid``, and others that share its prompt.

    Nothing of the others is encoded, and their seeds are made from the first one's.
    """
    jobs = []
    for number in range(n):
        seed = (job.sampling.seed or 0) + number * _NEXT_SEED & (1 << 63) - 1
        matcher = None if agreed.matcher is None else agreed.matcher.deep_copy()
        each = msgspec.structs.replace(job, matcher=matcher)
        if number:
            each = msgspec.structs.replace(
                each,
                encode_from=len(job.tokens),
                boundaries=(),
                handle=None,
                rehearsal=None,
                sampling=msgspec.structs.replace(job.sampling, seed=seed),
            )
        jobs.append(each)
    return jobs


class Choice:
    """One answer: what has been sampled, and what of it is text, thought and calls.

    ``uid`` is its job's, ``number`` its place among the turn's answers.
    """

    def __init__(self, company: Company, request: TurnRequest, agreed: Terms, number: int) -> None:
        self.uid = secrets.randbits(62)
        self.number = number
        self.tokens: list[int] = []
        self.num_reasoning = 0
        self.num_cached = 0
        self.kept_text = ""
        self.out_of_memory = False
        thinking = agreed.thinking is not None and agreed.thinking.begun
        self.parts = Parts(agreed.marks, request.tools, agreed.calls, thinking=thinking)
        self._bare = request.prompt is not None
        self._company = company
        self._reader = company.facts.text.reader(request.stop)
        self._reason: FinishReason = "stop"

    @property
    def reason(self) -> FinishReason:
        """Why it ended."""
        return "tool_calls" if self.parts.calls and self._reason == "stop" else self._reason

    @property
    def alternative(self) -> Alternative:
        """The whole answer, as one that is not remembered."""
        parts = self.parts
        return Alternative(parts.content, self.reason, parts.reasoning, parts.calls)

    async def perform(
        self, agent: str, job: Job, outbox: Outbox[TurnEvent], started: asyncio.Event
    ) -> JobDone:
        """Have the stage run the job, and tell the caller what comes.

        The first choice tells that the turn has ``started``; the others wait for that.
        """
        # The stage never waits for a reader: its channel holds a whole answer, which is small, and
        # what may be said of the prompt while it is read.
        capacity = job.max_tokens + len(job.tokens) + 8
        told_at = time.perf_counter()
        async with Channel[JobEvent](capacity) as events:
            self._company.gpu.tell(Generate(self.uid, job, events))
            if self.number:
                await started.wait()
            async for event in events:
                match event:
                    case JobStarted(cached_tokens) if not self.number:
                        self.num_cached = cached_tokens
                        outbox.put(TurnStarted(agent, len(job.tokens), cached_tokens))
                        started.set()
                    case JobProgress(done) if not self.number:
                        if (now := time.perf_counter()) - told_at >= PROGRESS_S:
                            told_at = now
                            outbox.put(TurnProgress(len(job.tokens), done))
                    case JobTokens(tokens, logprobs) if not self._reader.stopped:
                        outbox.put(self._read(tokens, logprobs))
                        if self._reader.stopped:
                            self._let_go(outbox, "")
                    case JobEnded(reason, out_of_memory) if not self._reader.stopped:
                        self._reason, self.out_of_memory = reason, out_of_memory
                        self._let_go(outbox, self._reader.end())
                    case JobDone():
                        return event
                    case _:  # what the stage emitted before it knew of a stop string
                        pass
        raise GreenroomError("the stage closed a turn without ending it")

    def _read(self, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]) -> TextDelta:
        self.tokens += tokens
        self.num_reasoning += len(tokens) if self.parts.thinks else 0
        said = self.parts.read(self._spaced(self._reader.read(tokens)))
        told = tuple(self._spelled(each) for each in logprobs)
        return TextDelta(said.content, tokens, said.reasoning, said.calls, told, self.number)

    def _spaced(self, new: str) -> str:
        """What continues a bare prompt keeps the space that detokenizers drop in front."""
        if not self._bare or self.parts.content or not new or new.startswith(" "):
            return new
        return " " + new if self._company.facts.text.decode(self.tokens).startswith(" ") else new

    def _spelled(self, logprob: TokenLogprob) -> TokenLogprob:
        return msgspec.structs.replace(
            logprob,
            utf8=self._company.facts.text.vocabulary.utf8(logprob.token),
            top=tuple(self._spelled(each) for each in logprob.top),
        )

    def _let_go(self, outbox: Outbox[TurnEvent], tail: str) -> None:
        """The answer is whole: tell the rest of it, and the stage how much of it to remember."""
        rest, last = self.parts.read(tail), self.parts.end()
        for said in (rest, last):
            if said.content or said.reasoning or said.calls:
                outbox.put(
                    TextDelta(said.content, (), said.reasoning, said.calls, choice=self.number)
                )
        keep, self.kept_text = self._company.facts.text.kept(self.tokens, self._reader.text)
        self._company.gpu.tell(Finish(self.uid, 0 if self.number else keep))


async def together(performing: Sequence[Coroutine[Any, Any, JobDone]]) -> list[JobDone]:
    """All of them at once; when one fails the others are cancelled, and what failed is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in performing]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
