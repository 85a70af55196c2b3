"""``greenroom chat NAME``: a conversation with one agent in the terminal."""

import argparse
import sys

from greenroom.actors.commands.command import Commands, add_command
from greenroom.actors.commands.reach import reach_options, reached
from greenroom.actors.commands.status import Status


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = add_command(commands, "chat", _chat, "talk to an agent", reach_options())
    parser.add_argument("name", help="the agent; it is made if there is none of that name")
    parser.add_argument("--system", help="its system prompt, if it is new")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="of one answer")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")


def _chat(options: argparse.Namespace) -> int:
    from greenroom.actors.commands.dialogue import Dialogue  # what it imports loads MLX

    with reached(options) as room:
        agent = room.spawn(options.name, system=options.system)
        dialogue = Dialogue(
            room,
            agent,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            as_json=options.json,
        )
        dialogue.run(sys.stdin)
    return Status.DONE
