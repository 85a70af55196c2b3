"""What the reference system was seen to get wrong, and where each of it is shown to go right here.

Most of these scenarios are tests of the part that would be at fault; they are listed, and the list
is checked. The ones that no single part owns are played below, in one real house.
"""

import ast
import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.runtime.layers import load_settings
from tests.server import make_home

TESTS = Path(__file__).parent
HERE = "test_reference_failures"
SCENARIOS = {
    "two requests at once ran one after the other": (
        "test_first_light::test_two_that_decode_together_each_say_what_they_say_alone",
        f"{HERE}::test_two_requests_at_once_share_the_stage",
    ),
    "a direct generate beside a chat wedged the server for good": (
        f"{HERE}::test_a_completion_beside_a_chat_harms_neither",
    ),
    "one illegal session name broke other streams, and the shutdown that persists": (
        f"{HERE}::test_an_illegal_name_is_refused_and_harms_nobody",
    ),
    "prefill through quantized memory turned a right answer wrong": (
        "test_first_light::test_hot_and_restarted_turns_stand_on_the_same_bytes",
        "test_doors::test_one_agent_through_all_three_doors",
    ),
    "evicting an agent overwrote its good file with an empty one": (
        "test_memory::test_who_was_evicted_goes_on_with_every_word",
        "test_memory::test_copies_make_way_for_encoded_segments_and_those_for_newer_ones",
    ),
    "a hot swap leaked the old model": (
        "test_swap::test_memory_is_back_where_it_was_after_a_swap",
    ),
    "the fingerprint ignored the weights": (
        "test_fingerprint::test_every_part_counts",
        "test_swap::test_agents_keep_their_memory_of_each_model",
    ),
    "an answer's state was thrown away each turn": (
        "test_doors::test_one_agent_through_all_three_doors",
    ),
    "a client that had left was served to the end": (
        "test_doors::test_a_client_that_leaves_frees_the_slot_within_one_step",
        "test_recording::test_a_turn_that_nobody_comes_back_to_is_given_up",
        "test_security::test_a_reader_who_takes_nothing_counts_as_gone",
    ),
    "errors arrived as a finish_reason of length": (
        "test_http::test_an_error_in_mid_stream_is_an_event_and_the_end",
        "test_http::test_a_turn_that_breaks_off_is_never_an_answer",
        "test_agents_door::test_what_goes_wrong_is_a_status_or_an_event_and_never_silence",
    ),
    "stop was ignored": ("test_doors::test_streams_and_whole_answers_say_the_same",),
    "tool_choice was ignored": (
        "test_clients::test_a_named_tool_is_called",
        "test_clients::test_a_required_tool_is_called_and_its_answer_goes_on_from_memory",
        "test_clients::test_a_call_comes_in_pieces_that_make_the_whole",
    ),
    "tools were dropped without a system message": ("test_clients::test_a_named_tool_is_called",),
    "two users with one long system prompt became one agent": (
        f"{HERE}::test_two_conversations_with_one_system_prompt_are_two_agents",
        "test_recognition::test_parallel_subagents_of_one_session_are_agents_of_their_own",
    ),
    "a short conversation became a new agent each turn": (
        f"{HERE}::test_a_short_conversation_stays_one_agent",
    ),
    "whispers never reached a prompt": (
        "test_scene::test_phases_openings_whispers_and_audiences_reach_whom_they_are_for",
    ),
    "votes were never counted": ("test_scene::test_votes_are_secret_counted_and_announced",),
    "profiles of models in TOML were never read": (
        "test_catalog::test_shipped_entries_are_complete",
        "test_claims::test_an_entry_may_choose_the_codec_where_the_settings_do_not",
        "test_claims::test_a_model_that_errs_in_a_batch_is_served_one_at_a_time",
    ),
    "the shared prefix cache was never called": (
        "test_sharing::test_two_at_once_compute_one_system_prompt_once",
        "test_memory::test_ten_agents_hold_and_store_a_shared_system_prompt_once",
    ),
    "the hit metric was never called": ("test_metrics::test_turns_of_a_real_house_are_measured",),
    "it listened on 0.0.0.0 with authentication off": (
        "test_http::test_listening_beyond_loopback_needs_a_key",
    ),
    "Bearer keys were refused": ("test_security::test_each_key_opens_a_namespace_of_its_own",),
    "prompts were in the logs": (
        "test_security::test_no_word_that_is_said_is_logged",
        "test_http::test_no_prompt_is_logged_at_info",
    ),
}


@pytest.mark.parametrize("failure", SCENARIOS)
def test_each_failure_has_a_scenario(failure: str) -> None:
    for scenario in SCENARIOS[failure]:
        module, _, name = scenario.partition("::")
        tree = ast.parse((TESTS / f"{module}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class House:
    """One real house for the scenarios below, with an event loop that lives as long."""

    def __init__(self, home: Path) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._doors = AsyncExitStack()
        self._settings = load_settings(overrides={"home": str(home)}).settings
        self.run(self._open())

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        self._runner.run(scenario)

    def close(self) -> None:
        self.run(self._doors.aclose())
        self._runner.close()

    async def _open(self) -> None:
        self.house = await self._doors.enter_async_context(open_house(self._settings))
        url = await self._doors.enter_async_context(serve_http(self.house, "127.0.0.1", 0))
        self.client = await self._doors.enter_async_context(aiohttp.ClientSession(url))

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any, str]:
        """The status, the answer, and the agent that gave it."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(path, json=body, headers=named) as response:
            return response.status, await response.json(), response.headers.get("X-Agent-Name", "")

    async def chat(self, *messages: str, system: str = "") -> tuple[str, str]:
        """The answer to a conversation that starts with the user, and the agent that gave it."""
        said = [{"role": "system", "content": system}] if system else []
        for n, text in enumerate(messages):
            said.append({"role": "assistant" if n % 2 else "user", "content": text})
        body = {"messages": said, "max_tokens": 6, "temperature": 0}
        status, told, agent = await self.post("/v1/chat/completions", body)
        assert status == 200
        return told["choices"][0]["message"]["content"], agent


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Iterator[House]:
    house = House(make_home(tmp_path_factory.mktemp("failures") / "home"))
    yield house
    house.close()


def test_two_requests_at_once_share_the_stage(real: House) -> None:
    async def scenario() -> None:
        before = await real.house.counters()
        body = {"content": "Count to fifty.", "max_tokens": 24, "temperature": 0}
        answers = await asyncio.gather(
            real.post("/v1/agents/one/say", body), real.post("/v1/agents/two/say", body)
        )
        assert [status for status, _, _ in answers] == [200, 200]
        after = await real.house.counters()
        rows = after.decode_rows - before.decode_rows
        assert rows > 1.3 * (after.decode_steps - before.decode_steps)

    real.run(scenario())


def test_a_completion_beside_a_chat_harms_neither(real: House) -> None:
    async def scenario() -> None:
        completion = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        for _ in range(2):
            (status, told, _), (answer, _) = await asyncio.gather(
                real.post("/v1/completions", completion), real.chat("What is the capital of Spain?")
            )
            assert status == 200
            assert told["choices"][0]["text"]
            assert answer

    real.run(scenario())


def test_an_illegal_name_is_refused_and_harms_nobody(real: House) -> None:
    async def scenario() -> None:
        say = {"type": "say", "content": "Count to fifty.", "max_tokens": 24}
        async with real.client.ws_connect("/v1/agents/legal/stream") as socket:
            await socket.send_json(say)
            frame = await socket.receive_json()
            for name in ("..%2F..%2Fetc", "a%2Fb", "%00", "..", "x" * 600):
                path = f"/v1/agents/{name}/say"
                status, _, _ = await real.post(path, {"content": "Hello"})
                assert status in (400, 404)
            status, told, _ = await real.post(
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": "Hello"}]},
                X_Agent_Name="a/b",
            )
            assert (status, told["error"]["param"]) == (400, "X-Agent-Name")
            while frame["type"] not in ("done", "error"):
                frame = await socket.receive_json()
            assert frame["type"] == "done"
            # Durable already: no shutdown has to write it down.
            assert frame["head"] is not None

    real.run(scenario())


def test_two_conversations_with_one_system_prompt_are_two_agents(real: House) -> None:
    async def scenario() -> None:
        system = "You are a patient guide through a museum of clocks. " * 20
        (_, ann), (_, ben) = await asyncio.gather(
            real.chat("I am Ann. Where do I begin?", system=system),
            real.chat("I am Ben. What is the oldest one?", system=system),
        )
        assert ann != ben

    real.run(scenario())


def test_a_short_conversation_stays_one_agent(real: House) -> None:
    async def scenario() -> None:
        first, agent = await real.chat("Hi.")
        second, same = await real.chat("Hi.", first, "And you?")
        _, still = await real.chat("Hi.", first, "And you?", second, "Good.")
        assert agent == same == still

    real.run(scenario())
