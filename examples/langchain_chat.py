"""A LangChain program: a prompt, the model and a parser as one chain, streamed and remembered.

Needs ``pip install langchain-openai``. Greenroom speaks OpenAI's API, so nothing else is special:
the agent's name goes before the model's, and the history that LangChain sends along is recognised.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import greenroom
from greenroom.runtime.layers import load_settings

SYSTEM = (
    "You are a guide in {city}. You answer in one sentence. The old town is on the island, the "
    "market is open in the morning, the tower can be climbed until six, and boats leave from the "
    "bridge every half an hour. The museum of glass is closed on Mondays."
)
QUESTIONS = ("When can one climb the tower?", "Where do the boats leave from?")


async def converse(url: str) -> None:
    model = ChatOpenAI(
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        model="guide@default",
        temperature=0,
        max_completion_tokens=24,
        stream_usage=True,
    )
    prompt = ChatPromptTemplate.from_messages(
        [("system", SYSTEM), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    history: list[BaseMessage] = []
    for question in QUESTIONS:
        given = {"city": "Ardal", "history": history, "question": question}
        print(f"you: {question}\nguide: ", end="")
        whole: Any = None
        async for chunk in (prompt | model).astream(given):
            whole = chunk if whole is None else whole + chunk
            print(chunk.content, end="", flush=True)
        answer = await StrOutputParser().ainvoke(whole)
        usage = whole.usage_metadata or {}
        cached = usage.get("input_token_details", {}).get("cache_read", 0)
        print(f"\n  ({cached} of {usage.get('input_tokens', 0)} tokens remembered)")
        history += [HumanMessage(question), AIMessage(answer)]


async def main(home: str) -> None:
    async with greenroom.open(home=home) as room, room.serve(port=0) as url:
        await converse(url)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
