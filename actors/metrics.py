"""``GET /metrics``: what the house and its HTTP door have done, in Prometheus's words."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from msgspec import structs
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greenroom.actors.house import House
from greenroom.actors.house_records import Status
from greenroom.runtime.counters import Histogram, StageCounters
from greenroom.runtime.errors import Unavailable

_STAGE_GAUGES = frozenset({"max_decode_gap_s", "waiting", "running"})
"""Fields of ``StageCounters`` that go up and down; the others only grow."""
_OTHER = "other"
_METHODS = frozenset(hdrs.METH_ALL)


class MetricsDoor:
    """Counts requests in a registry of its own, and shows it beside the house's."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "greenroom_http_requests",
            "Requests, by the route's pattern, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )

    @web.middleware
    async def counting(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware that counts; outermost, so that it sees every answer."""
        status = "left"
        try:
            response = await handler(request)
            status = str(response.status)
        finally:
            self._requests.labels(_route(request), _method(request), status).inc()
        return response

    async def get(self, request: web.Request) -> web.Response:
        """All figures now. While the stage cannot say, those that it is not needed for."""
        try:
            status: Status | None = await self._house.status()
        except Unavailable:
            status = None
        everything = CollectorRegistry()
        everything.register(_Snapshot(status, ready=self._house.ready()))
        everything.register(_All((self._registry, self._house.meter.registry)))
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(everything), headers={hdrs.CONTENT_TYPE: content_type})


class _All(Collector):
    """The metrics of several registries."""

    def __init__(self, registries: Iterable[CollectorRegistry]) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            yield from registry.collect()


class _Snapshot(Collector):
    """A status as metrics."""

    def __init__(self, status: Status | None, *, ready: bool) -> None:
        self._status = status
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        yield _gauge("ready", "1 while turns are taken.", self._ready)
        if self._status is None:
            return
        yield from _stage(self._status.stage)
        yield from _tiers(self._status)
        yield from _actors(self._status)


def _stage(counters: StageCounters) -> Iterator[Metric]:
    """Every figure that the stage counts, by its own name."""
    for field, value in structs.asdict(counters).items():
        name = f"stage_{field.removesuffix('_s')}" + ("_seconds" if field.endswith("_s") else "")
        words = f"The stage's {field.removesuffix('_s').replace('_', ' ')}."
        if isinstance(value, Histogram):
            yield _histogram(name, words, value)
        elif isinstance(value, int | float):
            make = _gauge if field in _STAGE_GAUGES else _counter
            yield make(name, words, value)


def _tiers(status: Status) -> Iterator[Metric]:
    tiers = _gauges("tier_bytes", "Bytes of agents' memory, by where they are.", "tier")
    tiers.add_metric(("stage",), status.stage.memory.stage)
    tiers.add_metric(("resident",), status.stage.memory.resident)
    tiers.add_metric(("hot",), status.hot.num_bytes)
    tiers.add_metric(("disk",), status.stored.num_bytes)
    yield tiers
    yield _counter("hot_evicted", "Segments that left memory for the disk.", status.hot.evicted)
    yield _gauge("segments", "Segments on disk.", status.stored.num_segments)
    yield _gauge("agents", "Agents that are known.", status.stored.num_agents)


def _actors(status: Status) -> Iterator[Metric]:
    yield _gauge("actors", "Actors in memory.", len(status.actors.actors))
    boxes = [(_kind(actor.path), actor) for actor in status.actors.actors]
    waiting = _gauges("mailbox_depth", "Messages that wait, by kind of actor.", "kind")
    restarts = _gauges("restarts", "Restarts of the actors in memory.", "kind")
    for kind in sorted({kind for kind, _ in boxes}):
        ours = [actor for k, actor in boxes if k == kind]
        waiting.add_metric((kind,), sum(actor.mailbox.depth for actor in ours))
        restarts.add_metric((kind,), sum(actor.restarts for actor in ours))
    yield waiting
    yield restarts
    letters = CounterMetricFamily(
        "greenroom_dead_letters", "Messages that had no effect, by why.", labels=("why",)
    )
    for why, count in status.actors.dead_letters.items():
        letters.add_metric((why,), count)
    yield letters


def _kind(path: str) -> str:
    """``/director/alice`` is an agent: labels are bounded, names are not told."""
    first, _, child = path.strip("/").partition("/")
    return "agent" if child else first


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else _OTHER


def _method(request: web.Request) -> str:
    return request.method if request.method in _METHODS else _OTHER


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"greenroom_{name}", words, value=value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(f"greenroom_{name}", words, value=value)


def _histogram(name: str, words: str, counted: Histogram) -> Metric:
    seen = accumulate(counted.counts)
    bounds = [*(f"{bound:g}" for bound in counted.bounds), "+Inf"]
    buckets = list(zip(bounds, seen, strict=True))
    return HistogramMetricFamily(
        f"greenroom_{name}", words, buckets=buckets, sum_value=counted.total
    )


def _gauges(name: str, words: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"greenroom_{name}", words, labels=(label,))
