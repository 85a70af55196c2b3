"""A process that ends while a model is at work ends quietly, with the status it should have."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.menagerie import config_of
from tests.server import ROOT
from tests.zoo import save_checkpoint

ASYNC = """
import asyncio, os, signal, sys, greenroom

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

async def main():
    async with greenroom.open({model!r}, home={home!r}) as room:
        bob = await room.spawn("bob")
        await bob.say("Hello", max_tokens=4)
        try:
            async for text in bob.stream("Tell me a long story.", max_tokens=1500):
                {deed}
        finally:
            print("leaving", flush=True)

asyncio.run(main())
"""
SYNC = """
import os, sys, greenroom

doors = greenroom.open_sync({model!r}, home={home!r})
room = doors.__enter__()
bob = room.spawn("bob")
bob.say("Hello", max_tokens=4)
story = iter(bob.stream("Tell me a long story.", max_tokens=1500))
next(story)
{deed}
"""
REMEMBERS = """
import greenroom
with greenroom.open_sync({model!r}, home={home!r}) as room:
    print([entry.kind for entry in room.agent("bob").log()])
"""
FORK = """
child = os.fork()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
sys.exit(3)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> str:
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("exits") / "model"
    return str(save_checkpoint(folder, default_model_path, config))


def python(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(program: str) -> tuple[int, str, str]:
    """Exit status, output and noise of a program."""
    with python(program) as process:
        output, noise = process.communicate(timeout=100)
    return process.returncode, output, noise


@pytest.mark.parametrize(
    ("deed", "status", "noise"),
    [
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('a mistake')", 1, "ValueError: a mistake"),
    ],
)
def test_leaving_from_within(
    model: str, tmp_path: Path, deed: str, status: int, noise: str
) -> None:
    program = ASYNC.format(model=model, home=str(tmp_path), deed=deed)
    returned, _, said = ended(program)
    assert (returned, said.strip().rpartition("\n")[2]) == (status, noise)


@pytest.mark.slow
def test_a_room_that_is_never_left(model: str, tmp_path: Path) -> None:
    """With a model at work, on two threads that die with the interpreter."""
    assert ended(SYNC.format(model=model, home=str(tmp_path), deed="")) == (0, "", "")
    kinds = "['system', 'prompt', 'generation']\n"
    assert ended(REMEMBERS.format(model=model, home=str(tmp_path))) == (0, kinds, "")


def test_an_impatient_ctrl_c(model: str, tmp_path: Path) -> None:
    """The second one interrupts the closing of the room."""
    deed = "print('under way', flush=True)"
    with python(ASYNC.format(model=model, home=str(tmp_path), deed=deed)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Two at once may be one: a signal that is pending already is not counted again.
        for line in ("under way\n", "leaving\n"):
            assert line in process.stdout
            process.send_signal(signal.SIGINT)
        process.stdout.read()
        noise = process.stderr.read()
    assert process.returncode == -signal.SIGINT, noise
    # Not always the last: one that falls into ``create_task`` has asyncio complain after it.
    assert "KeyboardInterrupt" in noise.splitlines()
    assert "terminate called" not in noise


@pytest.mark.slow
def test_a_child_that_leaves_at_once(model: str, tmp_path: Path) -> None:
    """It has none of the threads; the parent goes on."""
    assert ended(SYNC.format(model=model, home=str(tmp_path), deed=FORK.strip())) == (3, "0\n", "")
