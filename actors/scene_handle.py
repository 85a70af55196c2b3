"""A scene from Python: ``scene = await room.scene("tea", members=[alice, bob])``."""

from collections.abc import AsyncGenerator, Sequence
from typing import TypedDict

from greenroom.actors.reach import SceneReach
from greenroom.actors.scene_messages import SceneEvent, SceneInfo, Tell
from greenroom.runtime.ballot import Tally
from greenroom.runtime.scenario import Method, Order, Phase, Vote
from greenroom.runtime.transcript import Entry, Line, reaches


class SceneOptions(TypedDict, total=False):
    """How a scene goes, as in ``Scenario``; all of it may be left out."""

    phases: Sequence[Phase]
    order: Order
    moderator: str | None
    max_turns: int | None
    stop_words: Sequence[str]
    stop: Sequence[str]
    max_tokens: int
    at_once: int
    temperature: float | None
    seed: int | None


class Scene:
    """A named scene of a room. It is only a name: any number of these may stand for one scene.

    What goes wrong with a turn is tried again before it is raised; the scene can then be performed
    again and goes on where it was. All methods raise NotFound once the scene is deleted.
    """

    def __init__(self, scenes: SceneReach, namespace: str, name: str) -> None:
        self._scenes = scenes
        self._namespace = namespace
        self.name = name

    def __repr__(self) -> str:
        return f"Scene({self.name!r})"

    async def run(self, turns: int | None = None) -> list[Line]:
        """Perform it, for ``turns`` turns or to its end; what was said meanwhile.

        A broadcast begins whole, however few turns are left. Raises InvalidRequest for a scene
        without an end where no ``turns`` are given, Conflict while somebody else performs it.
        """
        return [event async for event in self.stream(turns) if isinstance(event, Line)]

    async def stream(
        self, turns: int | None = None, *, speaker: str | None = None
    ) -> AsyncGenerator[SceneEvent, None]:
        """The same, event by event: tokens of every member as they come, lines, ballots.

        ``speaker`` is cued first, out of turn. Closing the iterator (``aclosing``) stops the scene.
        """
        channel = await self._scenes.perform(self._namespace, self.name, turns, speaker)
        async with channel:
            async for event in channel:
                yield event

    async def step(self, speaker: str | None = None) -> list[Line]:
        """One turn: of whoever is next, or of ``speaker``."""
        events = self.stream(1, speaker=speaker)
        return [event async for event in events if isinstance(event, Line)]

    async def say(self, text: str, *, speaker: str | None = None) -> Line:
        """Tell everybody something, as the narrator or as a guest of that name.

        Raises InvalidRequest where ``speaker`` is a member, who speaks for itself.
        """
        return await self._scenes.tell(self._namespace, self.name, Tell(text, speaker))

    async def whisper(
        self, to: str | Sequence[str], text: str, *, speaker: str | None = None
    ) -> Line:
        """Tell some members only. Raises InvalidRequest for one who is not there."""
        names = (to,) if isinstance(to, str) else tuple(to)
        return await self._scenes.tell(self._namespace, self.name, Tell(text, speaker, names))

    async def vote(
        self,
        question: str,
        options: Sequence[str],
        *,
        method: Method = "majority",
        voters: Sequence[str] | None = None,
    ) -> Tally:
        """Ask all members, or ``voters``, in secret and at once; the result is told to everybody.

        One that was interrupted goes on. Raises InvalidRequest for options that are alike.
        """
        vote = Vote(
            question=question,
            options=tuple(options),
            method=method,
            voters=None if voters is None else tuple(voters),
        )
        return await self._scenes.tally(self._namespace, self.name, vote)

    async def watch(self) -> AsyncGenerator[SceneEvent, None]:
        """What happens from now on, whoever performs it."""
        async with await self._scenes.watch(self._namespace, self.name) as channel:
            async for event in channel:
                yield event

    async def transcript(self, *, heard_by: str | None = None) -> list[Line]:
        """What has been said, or what of it a member has said or heard."""
        lines = [entry for entry in await self.entries() if isinstance(entry, Line)]
        if heard_by is None:
            return lines
        return [line for line in lines if line.speaker == heard_by or reaches(line, heard_by)]

    async def entries(self) -> tuple[Entry, ...]:
        """All that has happened, ballots and silences too."""
        return await self._scenes.entries(self._namespace, self.name)

    async def info(self) -> SceneInfo:
        """Where it stands."""
        return await self._scenes.info(self._namespace, self.name)

    async def delete(self) -> None:
        """Stop it and forget what was said in it; its members keep their memories."""
        await self._scenes.delete(self._namespace, self.name)
