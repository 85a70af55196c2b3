"""``Scene`` without ``await``; what the methods do is written at their namesakes there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from greenroom.actors.loop_thread import LoopThread
from greenroom.actors.scene_handle import Scene
from greenroom.actors.scene_messages import SceneEvent, SceneInfo
from greenroom.runtime.ballot import Tally
from greenroom.runtime.scenario import Method
from greenroom.runtime.transcript import Entry, Line


class SyncScene:
    """A scene of a room that is used without ``await``. Ctrl-C stops what is performed."""

    def __init__(self, loop: LoopThread, scene: Scene) -> None:
        self._loop = loop
        self._scene = scene
        self.name = scene.name

    def __repr__(self) -> str:
        return f"SyncScene({self.name!r})"

    def run(self, turns: int | None = None) -> list[Line]:
        """Perform it, for ``turns`` turns or to its end; what was said meanwhile."""
        return self._loop.run(self._scene.run(turns))

    def stream(
        self, turns: int | None = None, *, speaker: str | None = None
    ) -> Iterator[SceneEvent]:
        """The same, event by event; leaving the loop stops the scene."""
        return self._loop.iterate(self._scene.stream(turns, speaker=speaker))

    def step(self, speaker: str | None = None) -> list[Line]:
        """One turn: of whoever is next, or of ``speaker``."""
        return self._loop.run(self._scene.step(speaker))

    def say(self, text: str, *, speaker: str | None = None) -> Line:
        """Tell everybody something, as the narrator or as a guest of that name."""
        return self._loop.run(self._scene.say(text, speaker=speaker))

    def whisper(self, to: str | Sequence[str], text: str, *, speaker: str | None = None) -> Line:
        """Tell some members only."""
        return self._loop.run(self._scene.whisper(to, text, speaker=speaker))

    def vote(
        self,
        question: str,
        options: Sequence[str],
        *,
        method: Method = "majority",
        voters: Sequence[str] | None = None,
    ) -> Tally:
        """Ask all members, or ``voters``, in secret and at once."""
        return self._loop.run(self._scene.vote(question, options, method=method, voters=voters))

    def watch(self) -> Iterator[SceneEvent]:
        """What happens from now on, whoever performs it."""
        return self._loop.iterate(self._scene.watch())

    def transcript(self, *, heard_by: str | None = None) -> list[Line]:
        """What has been said, or what of it a member has said or heard."""
        return self._loop.run(self._scene.transcript(heard_by=heard_by))

    def entries(self) -> tuple[Entry, ...]:
        """All that has happened, ballots and silences too."""
        return self._loop.run(self._scene.entries())

    def info(self) -> SceneInfo:
        """Where it stands."""
        return self._loop.run(self._scene.info())

    def delete(self) -> None:
        """Stop it and forget what was said in it; its members keep their memories."""
        self._loop.run(self._scene.delete())
