"""Goodput when far more clients come than can be served: tokens of whole answers per second.

The same turns of the same agents are asked for by two, by four and by ``--clients`` clients, each
of which asks again as soon as it is answered, and when it is told to if it is refused: whatever
differs is what the crowd costs. Printed are the rates, the forward passes and rows that they took,
how often who was refused, and the crowd's rate against the best of the small ones. Medians of
``--repeats``, with 95 % intervals.

    python -m benchmarks.overload [--clients 20] [--turns 4] [--repeats 3] [--most 64]
        [--json [FILE]]
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
ADMIN_KEY = "overload"


class Served(msgspec.Struct):
    """What came of it: tokens of whole answers, how many of each client's turns were answered, and
    how many were refused before. ``passes`` of the model and their ``rows``, where it was asked."""

    tokens: int
    seconds: float
    answers: list[int]
    refusals: int = 0
    passes: int = 0
    rows: int = 0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


async def crowd(url: str, num_clients: int, names: list[str], turns: int) -> Served:
    """Have so many clients take ``turns`` turns with each of the agents, which they divide.

    Raises where one is refused in another way than by 429 or 503 with ``Retry-After``.
    """
    served = Served(0, 0.0, [0] * num_clients)

    async def ask(client: aiohttp.ClientSession, number: int) -> None:
        body = {"content": "Count to fifty.", "max_tokens": 16, "temperature": 0}
        for name in names[number::num_clients] * turns:
            while True:
                async with client.post(f"/v1/agents/{name}/say", json=body) as response:
                    if response.status not in (429, 503):
                        response.raise_for_status()
                        served.tokens += (await response.json())["usage"]["completion_tokens"]
                        served.answers[number] += 1
                        break
                    served.refusals += 1
                    await asyncio.sleep(float(response.headers["Retry-After"]))

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(600)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as client:
        before = await stage(client)
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask(client, n) for n in range(num_clients)))
        served.seconds = asyncio.get_running_loop().time() - begun
        after = await stage(client)
    served.passes, served.rows = (a - b for a, b in zip(after, before, strict=True))
    return served


async def stage(client: aiohttp.ClientSession) -> tuple[int, int]:
    """Forward passes and rows of them so far; none where the server does not tell."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with client.get("/admin/status", headers=headers) as response:
        told = (await response.json()).get("stage")
    if told is None:
        return 0, 0
    return (
        told["decode_steps"] + told["prefill_chunks"],
        told["decode_rows"] + told["prefill_chunks"],
    )


def main() -> None:
    """Measure, and print what it came to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most", type=int, help="server.max_turns, to have some refused")
    add_outputs(parser, "overload")
    options = parser.parse_args()
    crowds: dict[int, list[Served]] = {n: [] for n in (*FEW, options.clients)}
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-overload-") as folder,
        shared_models(Path(folder)) as home,
    ):
        bound = ["--set", f"server.max_turns={options.most}"] if options.most else []
        server = Server(home, "--set", f"server.admin_key={ADMIN_KEY}", *bound)
        server.start()
        for repeat in range(options.repeats):
            for num, found in crowds.items():
                names = [f"r{repeat}-{num}-{n}" for n in range(options.clients)]
                found.append(uvloop.run(crowd(server.url, num, names, options.turns)))
        server.kill()
    report(crowds, options.clients, options.json)


def report(crowds: dict[int, list[Served]], num_flood: int, file: Path | None) -> None:
    """Print what it came to, and write it down where that is asked for."""
    rates = {num: figure([s.rate for s in found]) for num, found in crowds.items()}
    for num, found in crowds.items():
        passes = sum(s.passes for s in found) / sum(s.tokens for s in found)
        rows = sum(s.rows for s in found) / max(1, sum(s.passes for s in found))
        print(
            f"{num} clients: {rates[num]} tokens/s, {passes:.3f} passes a token,"
            f" {rows:.2f} rows a pass, {sum(s.refusals for s in found)} refusals"
        )
    # The best of each repeat would be the luckier one.
    best = max(FEW, key=lambda num: rates[num].median)
    pairs = zip(crowds[num_flood], crowds[best], strict=True)
    flooded = figure([flood.rate / few.rate for flood, few in pairs])
    print(f"{num_flood} clients against {best}: {flooded}")
    result = {
        "tokens_per_second": {f"{num} clients": rate for num, rate in rates.items()},
        "crowd_to_best_of_few": flooded,
    }
    write_json(file, result)


if __name__ == "__main__":
    main()
