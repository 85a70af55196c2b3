"""Goodput when far more clients come than can be served: tokens of whole answers per second.

Two, four and ``--clients`` clients in turn, each asking again as soon as it is answered, and when
it is told to if it is refused. Printed are the rates, and that of the crowd against the best of the
two small ones. Medians of ``--repeats``, with 95 % intervals.

    python -m benchmarks.overload [--clients 20] [--seconds 25] [--repeats 3] [--json [FILE]]
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from benchmarks.figures import add_outputs, figure, write_json
from benchmarks.serving import Server, shared_models

FEW = (2, 4)


class Served(msgspec.Struct):
    """What came of it: tokens of whole answers, and of each client how often it was answered."""

    tokens: int
    seconds: float
    answers: list[int]
    refusals: int

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


async def crowd(url: str, num_clients: int, name: str, seconds: float) -> Served:
    """Have so many clients ask for ``seconds``; each waits for its answer, or as it is told to.

    Raises where one is refused in another way than by 429 or 503 with ``Retry-After``.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    served = Served(0, 0.0, [0] * num_clients, 0)

    async def ask(client: aiohttp.ClientSession, number: int) -> None:
        body = {"content": "Count to fifty.", "max_tokens": 16, "temperature": 0}
        path = f"/v1/agents/{name}-{num_clients}-{number}/say"
        while loop.time() < begun + seconds or not served.answers[number]:
            async with client.post(path, json=body) as response:
                if response.status not in (429, 503):
                    response.raise_for_status()
                    served.tokens += (await response.json())["usage"]["completion_tokens"]
                    served.answers[number] += 1
                    continue
                served.refusals += 1
                await asyncio.sleep(float(response.headers["Retry-After"]))

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(240)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as client:
        await asyncio.gather(*(ask(client, n) for n in range(num_clients)))
    served.seconds = loop.time() - begun
    return served


def main() -> None:
    """Measure, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--repeats", type=int, default=3)
    add_outputs(parser, "overload")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {n: [] for n in (*FEW, options.clients)}
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-overload-") as folder,
        shared_models(Path(folder)) as home,
    ):
        server = Server(home)
        server.start()
        for repeat in range(options.repeats):
            for num, found in rates.items():
                served = crowd(server.url, num, f"repeat{repeat}", options.seconds)
                found.append(uvloop.run(served).rate)
        server.kill()
    for num, found in rates.items():
        print(f"{num} clients: {figure(found)} tokens/s")
    peaks = [max(few) for few in zip(*(rates[n] for n in FEW), strict=True)]
    flooded = [a / b for a, b in zip(rates[options.clients], peaks, strict=True)]
    print(f"{options.clients} clients against the best of {FEW}: {figure(flooded)}")
    result = {
        "tokens_per_second": {f"{num} clients": figure(found) for num, found in rates.items()},
        "crowd_to_best_of_few": figure(flooded),
    }
    write_json(options.json, result)


if __name__ == "__main__":
    main()
