import msgspec
import pytest

from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import NotFound
from greenroom.runtime.message import Message, Terminated
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System
from greenroom.runtime.testkit import run
from greenroom.runtime.wire import decode, encode
from tests.troupe import Note, Notes, Stream, Work, Worker


class Introduce(Message, frozen=True):
    who: Ref[Note]
    words: list[str]


def test_messages_and_refs_travel() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            for message in (
                Note(1),
                Notes(),
                Work("w", 2.0),
                Introduce(ref, ["hello"]),
                Terminated(ref, "killed"),
            ):
                assert decode(encode(message), type(message), system) == message
            back = decode(encode(Introduce(ref, [])), Introduce, system)
            back.who.tell(Note(5))
            assert await ref.ask(Notes()) == [5]

    run(main)


def test_what_cannot_travel_says_so() -> None:
    async def main() -> None:
        async with System() as system:
            with pytest.raises(TypeError, match="reply channel"):
                encode(Stream(Channel()))
            ref = system.spawn("a", Worker)
            data = encode(Introduce(ref, []))
            await system.stop(ref)
            with pytest.raises((NotFound, msgspec.ValidationError)):
                decode(data, Introduce, system)
            with pytest.raises(msgspec.ValidationError):
                decode(encode(Note(1)), Introduce, system)

    run(main)
