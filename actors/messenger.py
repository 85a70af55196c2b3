"""Tools by which an agent's model speaks to other agents, by name."""

from collections.abc import Collection

from greenroom.actors.handle import Agent
from greenroom.actors.tools import FunctionTool, ToolRefusal
from greenroom.runtime.errors import GreenroomError


def messengers(
    sender: Agent, to: Collection[Agent], *, max_tokens: int | None = 512
) -> tuple[FunctionTool, FunctionTool]:
    """``ask_agent`` and ``tell_agent``, for the agents that ``sender`` may speak to.

    What is asked is a turn of the other agent, whose answer of at most ``max_tokens`` tokens is the
    tool's result; what is told is only heard. Both come with the sender's name. The other agent
    has no tools of its own while it is asked, so that two agents cannot ask each other for ever.
    Raises ValueError when the sender is among the others.
    """
    others = {agent.name: agent for agent in to}
    if sender.name in others:
        raise ValueError(f"{sender.name} cannot be its own correspondent")

    def other(name: str) -> Agent:
        if name not in others:
            raise ToolRefusal(f"there is no agent {name!r}; there are: {', '.join(others)}")
        return others[name]

    async def ask_agent(name: str, question: str) -> str:
        agent = other(name)
        try:
            reply = await agent.say(f"{sender.name} asks: {question}", max_tokens=max_tokens)
        except GreenroomError as error:
            raise ToolRefusal(f"{name} cannot answer: {error}") from error
        return reply.text

    async def tell_agent(name: str, message: str) -> str:
        agent = other(name)
        try:
            await agent.hear(message, name=sender.name)
        except GreenroomError as error:
            raise ToolRefusal(f"{name} cannot be told: {error}") from error
        return f"{name} has been told."

    names = ", ".join(others)
    ask_agent.__doc__ = f"Ask another agent, and get its answer. They are: {names}."
    tell_agent.__doc__ = f"Tell another agent something; it need not answer. They are: {names}."
    return FunctionTool(ask_agent), FunctionTool(tell_agent)
