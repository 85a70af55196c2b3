"""Metrics: what a scrape shows, from a small house and from a real one."""

from pathlib import Path

import aiohttp
import uvloop
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.runtime.errors import AskTimeout, MailboxFull
from greenroom.runtime.layers import load_settings
from tests.house import SmallHouse, question, run, tell, visiting
from tests.server import make_home

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(client: aiohttp.ClientSession) -> Figures:
    """Every sample by its name and labels."""
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return figures(list(text_string_to_metric_families(await response.text())))


def figures(families: list[Metric]) -> Figures:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_the_route_and_not_by_what_callers_call_things() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            await tell(client, question())
            await tell(client, b"{")
            for path in ("/v1/models/a", "/v1/models/b", "/nowhere", "/elsewhere"):
                assert (await client.get(path)).status == 404
            await client.request("PROPFIND", "/nowhere")
            seen = {
                tuple(v for _, v in labels): value
                for (name, labels), value in (await scrape(client)).items()
                if name == "greenroom_http_requests_total"
            }
            assert seen == {
                ("POST", "/v1/chat/completions", "200"): 1,
                ("POST", "/v1/chat/completions", "400"): 1,
                ("GET", "/v1/models/{id}", "404"): 2,
                ("GET", "other", "404"): 2,
                ("other", "other", "404"): 1,
            }

    run(scenario())


def test_the_tiers_and_the_actors_are_shown() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with visiting(house) as client:
            seen = await scrape(client)
            assert seen["greenroom_tier_bytes", (("tier", "hot"),)] == 10
            assert seen["greenroom_tier_bytes", (("tier", "disk"),)] == 30
            assert seen["greenroom_hot_evicted_total", ()] == 4
            assert seen["greenroom_stage_jobs_total", ()] == 3
            assert seen["greenroom_dead_letters_total", (("why", "full"),)] == 2
            assert seen["greenroom_ready", ()] == 1
            house.is_ready = False
            house.status_refusal = AskTimeout("gpu", 10)
            seen = await scrape(client)
            assert seen["greenroom_ready", ()] == 0
            assert ("greenroom_stage_jobs_total", ()) not in seen
            async with client.get(
                "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
            ) as response:
                assert list(open_families(await response.text()))

    run(scenario())


def test_a_scrape_needs_the_key_where_there_is_one() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse(api_key="sesame")) as client:
            assert (await client.get("/metrics")).status == 401

    run(scenario())


def test_turns_of_a_real_house_are_measured(tmp_path: Path, default_model_path: Path) -> None:
    overrides = {"home": str(make_home(tmp_path / "home")), "actors.mailbox_capacity": "1"}
    settings = load_settings(overrides=overrides).settings

    async def scenario() -> None:
        async with (
            open_house(settings) as house,
            serve_http(house, "127.0.0.1", 0) as url,
            aiohttp.ClientSession(url) as client,
        ):
            for _ in range(2):
                status, _ = await tell(
                    client, question(max_tokens=4, temperature=0), X_Agent_Name="alice"
                )
                assert status == 200
            seen = await scrape(client)
            assert seen["greenroom_turns_total", (("ending", "done"),)] == 2
            assert seen["greenroom_ttft_seconds_count", ()] == 2
            assert seen["greenroom_stage_gap_seconds_count", ()] == 6
            prompt = seen["greenroom_prompt_tokens_total", ()]
            assert 0 < seen["greenroom_cached_tokens_total", ()] < prompt
            assert seen["greenroom_stage_decode_rows_total", ()] > 0
            assert seen["greenroom_tier_bytes", (("tier", "disk"),)] > 0
            assert seen["greenroom_tier_bytes", (("tier", "resident"),)] > 0
            assert seen["greenroom_agents", ()] == 1
            assert seen["greenroom_mailbox_depth", (("kind", "agent"),)] == 0
            for kind in ("agent", "director", "gpu", "keeper", "store"):
                assert seen["greenroom_restarts", (("kind", kind),)] == 0

    uvloop.run(scenario())


def test_refusals_are_counted_by_their_class() -> None:
    house = SmallHouse()
    house.meter.rejected(MailboxFull("alice", 2))
    house.meter.broken("left")

    async def scenario() -> None:
        async with visiting(house) as client:
            seen = await scrape(client)
        assert seen["greenroom_rejected_total", (("reason", "MailboxFull"),)] == 1
        assert seen["greenroom_turns_total", (("ending", "left"),)] == 1

    run(scenario())
