"""The comparison with other servers: in what order it measures, and what it makes of figures."""

from pathlib import Path

from benchmarks.cells import Cell, Measurement, Shelf
from benchmarks.compare import plan
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import figure
from benchmarks.markdown import markdown
from benchmarks.scenarios import SCENARIOS
from benchmarks.standings import compared, standings, tables


def cell(scenario: str, contender: str, **figures: list[float]) -> Cell:
    named = {name.replace("_", " "): values for name, values in figures.items()}
    return Cell(scenario, contender, [Measurement(named, 1.0, 0.1, "2026-01-01 00:00")])


def test_everything_is_played_once_before_anything_is_played_again() -> None:
    jobs = list(plan(list(CONTENDERS), list(SCENARIOS), 2))
    seen: list[tuple[str, str, int]] = [
        (scenario, job.contender, job.repeat) for job in jobs for scenario in job.scenarios
    ]
    assert len(set(seen)) == len(seen) == 2 * len(CONTENDERS) * len(SCENARIOS)
    assert [repeat for *_, repeat in seen] == sorted(repeat for *_, repeat in seen)
    tiers = [CONTENDERS[name].later for _, name, repeat in seen if repeat == 0]
    assert tiers == sorted(tiers)


def test_servers_take_turns_and_short_scenarios_share_one() -> None:
    jobs = list(plan(["greenroom", "llama.cpp"], ["ttft-512", "twins", "rates"], 1))
    assert [(job.contender, job.scenarios) for job in jobs] == [
        ("greenroom", ("rates", "twins")),
        ("llama.cpp", ("rates", "twins")),
        ("greenroom", ("ttft-512",)),
        ("llama.cpp", ("ttft-512",)),
    ]


def test_an_interrupted_run_finds_what_it_had(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "cells")
    kept = cell("ttft-512", "mlx-lm-best", cold_s=[1.5])
    kept.skipped = "it ended"
    shelf.save(kept)
    assert shelf.load("ttft-512", "mlx-lm-best") == kept
    assert shelf.load("ttft-512", "greenroom") == Cell("ttft-512", "greenroom")


def test_first_tied_and_behind() -> None:
    cells = [
        cell("ttft-512", "greenroom", cold_s=[2.0], hot_s=[0.1, 0.11], again_s=[0.3, 0.31]),
        cell("ttft-512", "mlx-lm", cold_s=[2.05], hot_s=[0.4, 0.41], again_s=[0.2, 0.201]),
        cell("ttft-512", "vllm-mlx", cold_s=[9.0], hot_s=[0.3, 0.32], again_s=[0.9, 0.91]),
        cell("ttft-512", "llama.cpp", cold_s=[0.5]),
    ]
    found = {s.name: (s.other, s.verdict) for s in compared(cells, mlx=True)}
    assert found == {
        "cold s": ("mlx-lm", "tied"),
        "hot s": ("vllm-mlx", "first"),
        "again s": ("mlx-lm", "**behind**"),
    }
    (against_llama,) = compared(cells, mlx=False)
    assert against_llama.times == 0.25
    assert "| ttft-512 | cold s | 2 | 2.05 (mlx-lm) | 1.02 | tied | 0.5 (llama.cpp) | 0.25 |" in (
        standings(cells)
    )


def test_of_rates_more_is_better_and_multiples_are_not_compared() -> None:
    name = "one agent tok/s"
    cells = [
        Cell("rates", who, [Measurement({name: [rate], "next / usual": [1.0]}, 1.0, None, "")])
        for who, rate in (("greenroom", 30.0), ("mlx-lm", 20.0), ("vllm-mlx", 10.0))
    ]
    (only,) = compared(cells, mlx=True)
    assert (only.name, only.other, only.verdict) == (name, "mlx-lm", "first")
    assert "| greenroom | **30** | **1** | 1 | ? |" in tables(cells)


def test_who_keeps_nothing_is_not_compared_by_what_is_written() -> None:
    cells = [
        cell("writes", "greenroom", written_MB=[0.5]),
        cell("writes", "mlx-lm", written_MB=[0.001]),
        cell("writes", "vllm-mlx-best", written_MB=[0.002]),
    ]
    assert list(compared(cells, mlx=True)) == []
    for each, size in zip(cells, (8.0, 0.001, 60.0), strict=True):
        each.measurements[0].figures["on disk after SIGTERM MB"] = [size]
    assert [s.other for s in compared(cells, mlx=True)] == ["vllm-mlx-best"]


def test_a_server_that_did_not_run_is_named_with_its_reason() -> None:
    cells = [cell("lag", "greenroom", worst_ms=[3.0]), Cell("lag", "mlx-lm", [], "it ended")]
    assert "- mlx-lm: it ended" in tables(cells)


def test_results_of_any_shape_become_tables() -> None:
    several = {"median": 2.0, "low": 1.5, "high": 2.5, "values": [1.5, 2.5]}
    assert markdown([{"a_b": 1, "c": several}]) == "| a b | c |\n| --- | --- |\n| 1 | 2 (1.5-2.5) |"
    assert markdown({"x": {"n": 1.23456}}) == "|  | n |\n| --- | --- |\n| x | 1.23 |"
    mixed = markdown({"total_ms": 5, "each": [{"a": 1}]})
    assert mixed == "|  |   |\n| --- | --- |\n| total ms | 5 |\n\n**each**\n\n| a |\n| --- |\n| 1 |"
    assert markdown({"row": list(range(30))}).endswith("| row | 0 … 29 |")


def test_one_value_has_no_interval() -> None:
    assert str(figure([0.25])) == "0.25"
