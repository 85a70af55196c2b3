"""Async context managers that are entered and left in a task of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def apart(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """``manager``, away from the caller's task.

    One that holds a task group would cancel the caller's task when something in it fails, and wrap
    what the caller's block raises into an exception group. Raises what entering raises.
    """
    leave = asyncio.Event()
    inside: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with manager as value:
            inside.set_result(value)
            await leave.wait()

    held = asyncio.create_task(hold())
    try:
        await asyncio.wait((inside, held), return_when=asyncio.FIRST_COMPLETED)
        if not inside.done():
            await held
        yield inside.result()
    finally:
        leave.set()
        if not inside.done():
            held.cancel()
        await asyncio.wait([held])
