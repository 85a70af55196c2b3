"""The custodian: what nothing needs leaves index and disk, and nothing else does."""

import asyncio
import errno
import io
import os
from pathlib import Path

import pytest

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.custodian import Quota
from greenroom.actors.custodian_messages import Erase, Tidy, Wrote
from greenroom.actors.fetching import fetch
from greenroom.actors.keeper_messages import Keep, Settle
from greenroom.actors.store_messages import Commit, LetGo, Match, Recall
from greenroom.runtime.errors import StorageFailed
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
from greenroom.runtime.rows import PinRow
from greenroom.runtime.vault import Vault
from tests.backstage import ROOMY, SECRET, Backstage, backstage, payload_of, segment

ALICE, BOB = AgentKey("n", "alice"), AgentKey("n", "bob")


def test_what_is_erased_is_in_no_file(tmp_path: Path) -> None:
    root = segment(None, range(40), messages=())
    secret = segment(root, range(100, 140))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, root, secret)
        await house.turn(ALICE, root)  # back to before it was said
        freed = await house.custodian.ask(Erase((root.id, secret.id)))
        assert freed.num_segments == 1
        assert await house.files() == {root.id}
        assert freed.num_bytes > payload_of(secret).num_bytes
        tokens = (*root.tokens.tolist(), *secret.tokens.tolist())
        (piece,) = await house.store.ask(Match("n", tokens))
        assert piece.segment == root
        assert await house.store.ask(Recall(secret.id)) == ()
        content = await house.content()
        assert SECRET.encode() not in content
        assert secret.token_bytes not in content
        assert root.token_bytes in content

    backstage(tmp_path, scenario)


def test_what_heads_pins_and_running_turns_need_stays(tmp_path: Path) -> None:
    root = segment(None, range(40))
    shared, pinned, free = (segment(root, range(n, n + 40)) for n in (100, 200, 300))
    below = segment(free, range(400, 440))
    everything = (root, shared, pinned, free, below)
    ids = tuple(s.id for s in everything)

    async def grow(house: Backstage) -> None:
        await house.turn(ALICE, *everything)
        await house.turn(ALICE, shared)

    async def erase(house: Backstage) -> None:
        tokens = tuple(t for s in (root, free, below) for t in s.tokens.tolist())
        await house.store.ask(Match("n", tokens, BOB))
        assert (await house.custodian.ask(Erase(ids))).num_segments == 0
        house.store.tell(LetGo(BOB))
        assert (await house.custodian.ask(Erase(ids))).num_segments == 2
        assert await house.files() == {root.id, shared.id, pinned.id}

    backstage(tmp_path, grow)
    index = Index(tmp_path)
    index.pin(PinRow("n", "bob", pinned.id, 1.0))
    index.close()
    backstage(tmp_path, erase)


def test_what_a_turn_has_kept_and_not_committed_keeps_its_file(tmp_path: Path) -> None:
    """Another turn had made the same segment, and nobody needed it any more."""
    root, again = segment(None, range(40)), segment(None, range(50, 90))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, again)
        await house.turn(ALICE, root)
        assert not await house.keeper.ask(Keep(((again, payload_of(again)),)))
        assert (await house.custodian.ask(Erase((again.id,)))).num_segments == 1
        await house.store.ask(Commit(BOB, (again,), again.id))
        house.keeper.tell(Settle((again.id,)))
        assert (await fetch(house.keeper, (again.id,))).bad is None
        assert await house.store.ask(Recall(again.id))

    backstage(tmp_path, scenario)


def test_a_store_that_outgrows_its_quota_lets_go_of_the_oldest_bytes(tmp_path: Path) -> None:
    trunk = segment(None, range(40))
    tips = [segment(trunk, range(n, n + 3000)) for n in range(100, 1100, 100)]  # 190 KB each
    keys = [AgentKey("n", f"agent-{n}") for n in range(len(tips))]

    async def scenario(house: Backstage) -> None:
        for key, tip in zip(keys, tips, strict=True):
            await house.turn(key, *([trunk, tip] if tip is tips[0] else [tip]))
        cleared = await house.custodian.ask(Tidy())
        assert cleared.num_collected == 0
        assert cleared.num_bytes <= cleared.quota_bytes
        kept = await house.files()
        assert trunk.id in kept
        assert 2 < len(kept) < len(tips)
        left = [tip.id in kept for tip in tips]
        assert left == sorted(left), "the longest unused went"
        for tip in tips:
            assert len(await house.store.ask(Recall(tip.id))) == 2, "its words are known"
            tokens = (*trunk.tokens.tolist(), *tip.tokens.tolist())
            matched = await house.store.ask(Match("n", tokens))
            assert len(matched) == (2 if tip.id in kept else 1)
            fetched = await fetch(house.keeper, tuple(p.segment.id for p in matched))
            assert fetched.bad is None
        again = tips[0]
        await house.turn(keys[0], again)
        assert again.id in await house.files()

    async def restarted(house: Backstage) -> None:
        kept = await house.files()
        matched = [
            len(await house.store.ask(Match("n", (*range(40), *tip.tokens.tolist()))))
            for tip in tips
        ]
        assert matched == [2 if tip.id in kept else 1 for tip in tips]

    backstage(tmp_path, scenario, Quota(1_200_000, 1e9))
    backstage(tmp_path, restarted)


def test_what_turns_write_makes_a_round_begin(tmp_path: Path) -> None:
    async def scenario(house: Backstage) -> None:
        await house.custodian.ask(Tidy())
        for number in range(6):
            grown = segment(None, range(number, number + 3000))
            await house.turn(AgentKey("n", str(number)), grown)
        await house.custodian.ask(Erase(()))  # comes after what was told
        assert 3 <= len(await house.files()) < 6

    backstage(tmp_path, scenario, Quota(1_000_000, 1e9))


@pytest.mark.parametrize("quota", [ROOMY, Quota(1 << 30, 0.0)], ids=["roomy", "impatient"])
def test_files_that_nobody_owns_count_and_go(tmp_path: Path, quota: Quota) -> None:
    kept, broken = segment(None, range(40)), segment(None, range(50, 90))
    vault = Vault(tmp_path)
    unowned = segment(None, range(70))
    vault.write(unowned, payload_of(unowned))
    strange = [tmp_path / "segments" / "notes.txt", tmp_path / "segments" / "ab" / "deep" / "er"]
    old = [*strange, vault.path(unowned.id), tmp_path / "tmp" / "half", tmp_path / "quarantine/q"]
    young = tmp_path / "tmp" / "being-written"

    def litter() -> None:
        for path in (*old, young):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 100)
        for path in old:
            os.utime(path, (1e9, 1e9))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, kept)
        await house.turn(BOB, broken)
        await house.custodian.ask(Erase(()))  # after the round of the start, which sweeps as well
        vault.path(broken.id).unlink()
        await asyncio.to_thread(litter)
        await house.custodian.ask(Tidy())
        left = await asyncio.to_thread(lambda: [p.exists() for p in (*old, young)])
        if quota is ROOMY:
            assert left == [True] * 6
            return
        assert left == [False] * 5 + [True]
        assert await house.files() == {kept.id}
        assert len(await house.store.ask(Recall(broken.id))) == 1
        assert (await fetch(house.keeper, (broken.id,))).bad == broken.id, "what was hot is gone"
        assert await house.store.ask(Match("n", tuple(range(50, 90)))) == ()

    backstage(tmp_path, scenario, quota)


class Full(Medium):
    """A disk without room for files; the index's pages are there already."""

    def write(self, file: io.FileIO, data: memoryview) -> None:
        raise OSError(errno.ENOSPC, "no room")


def test_a_full_disk_refuses_the_turn_and_begins_a_round(tmp_path: Path) -> None:
    async def scenario(house: Backstage) -> None:
        await house.custodian.ask(Tidy())
        (tmp_path / "quarantine" / "old").touch()
        with pytest.raises(StorageFailed):
            await house.turn(ALICE, segment(None, range(40)))
        await house.custodian.ask(Erase(()))  # comes after what was told
        assert not (tmp_path / "quarantine" / "old").exists()
        assert await house.files() == set()

    backstage(tmp_path, scenario, Quota(1 << 30, -1.0), Full())


class Stubborn(Medium):
    """Nothing can be deleted but what is temporary."""

    def unlink(self, path: Path) -> None:
        if path.parent.name != "tmp":
            raise PermissionError(errno.EPERM, "not yours")
        super().unlink(path)


def test_a_disk_that_deletes_nothing_stops_nobody(tmp_path: Path) -> None:
    first, second = segment(None, range(40)), segment(None, range(50, 90))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, first)
        await house.turn(ALICE, second)
        with pytest.raises(StorageFailed, match="cannot be deleted"):
            await house.custodian.ask(Erase((first.id,)))
        house.custodian.tell(Wrote(None))
        assert (await house.custodian.ask(Erase(()))).num_segments == 0
        await house.turn(BOB, first)
        assert (await fetch(house.keeper, (first.id,))).bad is None

    backstage(tmp_path, scenario, Quota(1 << 30, -1.0), Stubborn())
