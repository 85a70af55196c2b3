"""A cue is put to its member, again and again where that fails, until the member has answered."""

import msgspec

from greenroom.actors.audience import Audience
from greenroom.actors.ongoing import opened
from greenroom.actors.players import Agency, Players, agent_of
from greenroom.actors.prompter import Prompter
from greenroom.actors.scene_messages import Interrupted, Speaking, Token
from greenroom.runtime.clock import Clock
from greenroom.runtime.constraint import JsonAnswer
from greenroom.runtime.errors import ActorFailed, GreenroomError, InvalidRequest, NotFound
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest
from greenroom.runtime.transcript import Cue, Transcript, said_as

RETRY_AFTER_S = (0.2, 1.0, 3.0, 8.0)
"""How long a turn that failed waits before it is taken again, each time; then it is given up."""


CHOICE = "choice"
"""The name of what a ballot or a call is held to, where that cannot be done."""


class Outcome(msgspec.Struct, frozen=True):
    """How a cue ended: with an answer, or for a ``reason`` without one."""

    done: TurnDone | None
    reason: str = ""


class Asking:
    """Asks the members of a scene, and lets the audience see how they answer, and others hear."""

    def __init__(
        self,
        players: Players,
        transcript: Transcript,
        house: Agency,
        audience: Audience,
        clock: Clock,
        prompter: Prompter,
    ) -> None:
        self._players = players
        self._transcript = transcript
        self._house = house
        self._audience = audience
        self._clock = clock
        self._prompter = prompter

    async def answer(self, cue: Cue) -> Outcome:
        """Ask the member until it has answered, or cannot.

        Raises what keeps it from answering that is not its own fault.
        """
        request = self._request(cue)
        for wait_s in (*RETRY_AFTER_S, None):
            try:
                return Outcome(await self._ask(cue, request))
            except InvalidRequest as error:
                if error.param != CHOICE:
                    return Outcome(None, error.code or "refused")
                # Not with this model: then it answers freely, and what it means is read out of it.
                request = msgspec.structs.replace(request, constraint=None)
                continue
            except GreenroomError as error:
                if wait_s is None and isinstance(error, ActorFailed):
                    return await self._recall(cue, request)
                if wait_s is None:
                    raise
                reason = type(error).__name__
            self._audience.put(Interrupted(cue=cue.number, speaker=cue.speaker, reason=reason))
            await self._clock.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _recall(self, cue: Cue, request: TurnRequest) -> Outcome:
        """What a member that keeps crashing has answered all the same, if it has: it may have
        crashed once it was remembered. Until that is known the cue stays open."""
        repeat = msgspec.structs.replace(request, messages=())
        for wait_s in RETRY_AFTER_S:
            try:
                return Outcome(await self._ask(cue, repeat))
            except NotFound:
                return Outcome(None, "failed")
            except GreenroomError:
                await self._clock.sleep(wait_s)
        return Outcome(await self._ask(cue, repeat))

    async def _ask(self, cue: Cue, request: TurnRequest) -> TurnDone:
        await self._players.summon(self._transcript.scenario.member(cue.speaker), cue.phase)
        self._prompter.leave(cue)
        said = ""
        async with opened(self._house, request) as turn:
            started = turn.started
            self._audience.put(
                Speaking(
                    cue=cue.number,
                    speaker=cue.speaker,
                    prompt_tokens=started.prompt_tokens,
                    cached_tokens=started.cached_tokens,
                )
            )
            async for event in turn:
                match event:
                    case TextDelta(text=text) if text:
                        self._audience.put(Token(cue=cue.number, speaker=cue.speaker, text=text))
                        said += text
                        self._prompter.prompt(cue, said)
                    case TurnDone():
                        return event
                    case _:  # a token whose character is not complete yet
                        pass
        raise AssertionError("a turn that has no end raises")

    def _request(self, cue: Cue) -> TurnRequest:
        so_far = self._transcript
        scenario = so_far.scenario
        member = scenario.member(cue.speaker)
        told = [
            ChatMessage(
                "user", line.text, said_as(line), heard=True, key=self._players.key(line.number)
            )
            for line in so_far.unheard(member, cue.horizon, cue.phase)
        ]
        if cue.text or not told:
            told.append(ChatMessage("user", cue.text or "Go on."))
        phase = scenario.script[cue.phase]
        max_tokens = member.max_tokens or phase.max_tokens or scenario.max_tokens
        choice = self._choice(cue)
        if choice is not None:  # it ends by itself, and must be whole
            max_tokens = max(max_tokens, len(msgspec.json.encode(choice.schema)))
        return TurnRequest(
            messages=tuple(told),
            mode="say",
            agent=agent_of(member, cue.phase),
            namespace=self._players.namespace,
            max_tokens=max_tokens,
            # Small models like to go on with what the others might say.
            stop=(*(f"\n{name}:" for name in scenario.names), *scenario.stop),
            sampling=Sampling(
                temperature=scenario.temperature,
                seed=None if scenario.seed is None else scenario.seed + cue.number,
            ),
            constraint=choice,
            key=self._players.key(cue.number),
        )

    def _choice(self, cue: Cue) -> JsonAnswer | None:
        """What a ballot or a call may be."""
        so_far = self._transcript
        match cue.purpose:
            case "vote":
                assert cue.poll is not None
                vote = so_far.open_polls[cue.poll].vote
                one = {"enum": list(vote.options)}
                if vote.method == "majority":
                    return JsonAnswer(one, CHOICE)
                many = len(vote.options)
                ranking = {"type": "array", "items": one, "minItems": many, "maxItems": many}
                return JsonAnswer(ranking, CHOICE)
            case "call":
                cast = so_far.scenario.cast(so_far.scenario.script[cue.phase])
                return JsonAnswer({"enum": list(cast)}, CHOICE)
            case "speak":
                return None
