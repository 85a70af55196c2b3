"""A tool-using agent, over OpenAI's chat completions: it asks for a function, gets the result, and
answers from it. The function's schema comes from its type hints.

The small default model would rarely ask by itself: ``tool_choice`` makes it. With a larger one,
``await agent.say(question, tools=[stock])`` does all of this in one line.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import aiohttp

import greenroom
from greenroom.actors.tools import FunctionTool
from greenroom.runtime.layers import load_settings

SHELVES = {"apples": 12, "pears": 0, "plums": 140}


async def stock(fruit: Literal["apples", "pears", "plums"]) -> str:
    """How many pieces of a fruit the shop has."""
    return f"The shop has {SHELVES[fruit]} {fruit}."


async def converse(session: aiohttp.ClientSession, question: str) -> None:
    """One question: a forced call, the tool's result, and the answer."""
    tool = FunctionTool(stock)
    function = {
        "name": tool.spec.name,
        "description": tool.spec.description,
        "parameters": dict(tool.spec.parameters),
    }
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You work in a shop. Answer in one short sentence."},
        {"role": "user", "content": question},
    ]
    body = {"tools": [{"type": "function", "function": function}], "temperature": 0}
    for choice in ({"type": "function", "function": {"name": "stock"}}, "none"):
        asked = {**body, "messages": messages, "tool_choice": choice, "max_tokens": 48}
        async with session.post(
            "/v1/chat/completions", json=asked, headers={"X-Agent-Name": "clerk"}
        ) as response:
            told = await response.json()
        if "error" in told:
            sys.exit(told["error"]["message"])
        message, usage = told["choices"][0]["message"], told["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        messages.append(message)
        for call in message.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            result = await tool.run(arguments)
            print(f"  calls {call['function']['name']}({arguments}) -> {result}", flush=True)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if message.get("content"):
            print(f"  answers ({cached} of {usage['prompt_tokens']} tokens remembered): ", end="")
            print(json.dumps(message["content"].strip()))


async def main(home: str) -> None:
    async with (
        greenroom.open(home=home) as room,
        room.serve(port=0) as url,
        aiohttp.ClientSession(url) as session,
    ):
        for question in ("How many plums do we have?", "Are there any pears?"):
            print(question)
            await converse(session, question)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
