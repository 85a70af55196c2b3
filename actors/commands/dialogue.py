"""A conversation in the terminal: lines in, answers as they come, and what they cost."""

import readline
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from greenroom.actors.commands.agents import log_table
from greenroom.actors.reply import Reply
from greenroom.actors.sync import SyncAgent, SyncRoom
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import TextDelta, TurnProgress

HELP = """\
/fork NAME      go on as NAME, which remembers the same
/rollback SEG   go back to a segment of the log (its first letters are enough)
/log            what the agent remembers, segment by segment
/switch NAME    talk to another agent
/hear TEXT      tell it something without an answer
/help           this
/quit           leave (so does Ctrl-D); Ctrl-C cancels an answer"""
# What a model writes must not steer the terminal.
_CONTROLS = {code: None for code in range(32) if chr(code) not in "\n\t"} | {127: None}


class Dialogue:
    """One person, one agent at a time. With ``as_json`` each turn is one line of JSON."""

    def __init__(
        self,
        room: SyncRoom,
        agent: SyncAgent,
        *,
        max_tokens: int | None,
        temperature: float | None,
        as_json: bool,
    ) -> None:
        self._room = room
        self._agent = agent
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._as_json = as_json
        self._console = Console(highlight=False)
        self._verbs: dict[str, Callable[[str], None]] = {
            "/fork": self._fork,
            "/rollback": self._rollback,
            "/log": self._log,
            "/switch": self._switch,
            "/hear": self._hear,
            "/help": self._help,
        }

    def run(self, lines: TextIO) -> None:
        """Talk until ``lines`` end or ask to quit."""
        if lines.isatty() and not self._as_json:
            self._tell(f"{self._room.model.name}; /help says what else there is, /quit leaves")
        for line in self._read(lines):
            if line == "/quit":
                return
            try:
                self._take(line)
            except GreenroomError as error:
                self._trouble(error)
            except KeyboardInterrupt:
                self._tell("\ncancelled; it is not remembered")

    def _read(self, lines: TextIO) -> Iterator[str]:
        """Lines that say something: from a terminal with a prompt and editing, else as they are."""
        if not lines.isatty() or self._as_json:
            yield from (text for line in lines if (text := line.strip()))
            return
        readline.set_auto_history(True)
        while True:
            try:
                line = input(f"{self._agent.name}> ").strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                self._tell("\n/quit leaves")
                continue
            if line:
                yield line

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line.startswith("/"):
            self._say(line)
        elif (verb := self._verbs.get(word)) is not None:
            verb(rest.strip())
        else:
            self._tell(f"{word} is not known; /help says what is")

    def _say(self, line: str) -> None:
        stream = self._agent.stream(
            line, max_tokens=self._max_tokens, temperature=self._temperature
        )
        reading: Status | None = None
        try:
            for event in stream.events():
                match event:
                    case TurnProgress(total, done) if not self._as_json:
                        words = f"reading the prompt: {done} of {total} tokens"
                        reading = reading or self._console.status(words)
                        reading.start()
                        reading.update(words)
                    case TextDelta(text) if not self._as_json:
                        if reading is not None:
                            reading.stop()
                        sys.stdout.write(text.translate(_CONTROLS))
                        sys.stdout.flush()
                    case _:  # the beginning, and the end, which the reply tells
                        pass
        finally:
            if reading is not None:
                reading.stop()
        self._account(stream.reply)

    def _account(self, reply: Reply) -> None:
        """What the answer took."""
        if self._as_json:
            self._print_json({"agent": self._agent.name, **msgspec.structs.asdict(reply)})
            return
        usage, timings = reply.usage, reply.timings
        speed = 1e3 * (usage.completion_tokens - 1) / timings.decode_ms if timings.decode_ms else 0
        cut = " · cut at the limit" if reply.finish_reason == "length" else ""
        print()
        self._tell(
            f"cached {usage.cached_tokens} of {usage.prompt_tokens} · "
            f"TTFT {timings.ttft_ms:.0f} ms · {usage.completion_tokens} tokens at "
            f"{speed:.1f}/s{cut}"
        )
        for notice in reply.notices:
            self._tell(notice)

    # -- what else can be asked for

    def _fork(self, name: str) -> None:
        self._agent = self._agent.fork(name)
        self._done(f"this is {self._agent.name} now")

    def _rollback(self, segment: str) -> None:
        info = self._agent.rollback(segment)
        self._done(f"{info.name} remembers {info.num_tokens} tokens")

    def _log(self, _: str) -> None:
        log = self._agent.log()
        if self._as_json:
            self._print_json({"agent": self._agent.name, "log": log})
        else:
            self._console.print(log_table(log), markup=False)

    def _switch(self, name: str) -> None:
        self._agent = self._room.spawn(name)
        self._done(f"this is {self._agent.name} now")

    def _hear(self, text: str) -> None:
        self._agent.hear(text)
        self._done(f"{self._agent.name} hears it")

    def _help(self, _: str) -> None:
        self._tell(HELP)

    # --

    def _done(self, words: str) -> None:
        if self._as_json:
            self._print_json({"agent": self._agent.name})
        else:
            self._tell(words)

    def _tell(self, words: str) -> None:
        self._console.print(f"[dim]{escape(words)}[/]")

    def _trouble(self, error: GreenroomError) -> None:
        if self._as_json:
            self._print_json({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            self._console.print(f"[red]{escape(str(error))}[/]")

    def _print_json(self, shown: object) -> None:
        print(msgspec.json.encode(shown).decode(), flush=True)
