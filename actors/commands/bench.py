"""``greenroom bench``: what a turn costs on this machine, cold and remembered, in a minute."""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.progress import Progress
from rich.table import Table

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console, print_json
from greenroom.actors.commands.status import Status

if TYPE_CHECKING:
    from greenroom.actors.reply import Reply
    from greenroom.actors.sync import SyncRoom

ANSWER_TOKENS = 32
SENTENCE = "The clock in room {n} is wound on day {d} by the porter, who keeps its key. "


class Figures(msgspec.Struct, frozen=True):
    """Medians: milliseconds to the first token of a prompt of ``prompt_tokens`` that is new, of a
    follow-up of the same agent, and of one after a restart; and tokens a second of an answer."""

    model: str
    prompt_tokens: int
    cold_ttft_ms: float
    follow_up_ttft_ms: float
    restarted_ttft_ms: float
    decode_tokens_per_s: float


def add(commands: Commands) -> None:
    """Add the parser."""
    summary = "measure what a turn costs here, cold and remembered"
    parser = add_command(commands, "bench", _bench, summary, settings_options())
    parser.add_argument("--tokens", type=int, default=512, help="about so long a prompt (512)")
    parser.add_argument("--repeats", type=int, default=3, help="medians of so many turns (3)")


def _bench(options: argparse.Namespace) -> int:
    given = effective(options).settings
    with mlx_needed():
        from greenroom.actors.room import open_settings
        from greenroom.actors.sync import in_step
    given.models_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-") as folder:
        # A home of its own, so that nothing of the user's is touched or remembered.
        Path(folder, "models").symlink_to(given.models_path)
        settings = msgspec.structs.replace(given, home=folder)
        work = console() if not options.json else None
        with Progress(console=work, transient=True, disable=work is None) as progress:
            task = progress.add_task("measuring", total=3 * options.repeats)
            cold, again, late = [], [], []
            with in_step(lambda: open_settings(settings)) as room:
                model = room.model.name
                for number in range(options.repeats):
                    cold.append(_say(room, number, _prose(number, options.tokens)))
                    progress.advance(task)
                    again.append(_say(room, number, "And then?"))
                    progress.advance(task)
            with in_step(lambda: open_settings(settings)) as room:
                for number in range(options.repeats):
                    late.append(_say(room, number, "And after that?"))
                    progress.advance(task)
    figures = Figures(
        model=model,
        prompt_tokens=cold[0].usage.prompt_tokens,
        cold_ttft_ms=_ttft(cold),
        follow_up_ttft_ms=_ttft(again),
        restarted_ttft_ms=_ttft(late),
        decode_tokens_per_s=statistics.median(map(_speed, [*cold, *again, *late])),
    )
    if options.json:
        print_json(figures)
        return Status.DONE
    table = Table("", "", box=None, show_header=False)
    table.add_row(f"{model}, {figures.prompt_tokens} tokens, new", f"{figures.cold_ttft_ms:.0f} ms")
    table.add_row("the same agent's next turn", f"{figures.follow_up_ttft_ms:.0f} ms")
    table.add_row("its next turn after a restart", f"{figures.restarted_ttft_ms:.0f} ms")
    table.add_row("an answer", f"{figures.decode_tokens_per_s:.1f} tokens/s")
    console().print(table, markup=False)
    return Status.DONE


def _say(room: "SyncRoom", number: int, words: str) -> "Reply":
    agent = room.agent(f"bench-{number}")
    return agent.say(words, max_tokens=ANSWER_TOKENS, temperature=0)


def _prose(number: int, tokens: int) -> str:
    sentences = max(1, tokens // 20)
    return "".join(SENTENCE.format(n=n, d=n * (number + 3) % 31) for n in range(sentences))


def _ttft(replies: "list[Reply]") -> float:
    return statistics.median(reply.timings.ttft_ms for reply in replies)


def _speed(reply: "Reply") -> float:
    return 1e3 * (reply.usage.completion_tokens - 1) / max(reply.timings.decode_ms, 1e-9)
