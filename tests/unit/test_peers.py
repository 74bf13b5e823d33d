"""What the comparison with other task queues is counted by."""

from pathlib import Path

import pytest

from benchmarks.peers.__main__ import Row
from benchmarks.peers.apps.stamps import FIRST_OF_LOAD, Stamps
from benchmarks.peers.catalog import PEERS, Peer
from benchmarks.peers.course import Outcome
from benchmarks.peers.environment import APPS, REQUIREMENTS


def test_a_task_counts_once_and_is_seen_by_every_process(tmp_path: Path) -> None:
    driver = Stamps.create(tmp_path / "stamps")
    worker, other = (Stamps(str(tmp_path / "stamps")) for _ in range(2))
    worker.ran(FIRST_OF_LOAD + 1)
    first = driver.of_load(2)
    other.ran(FIRST_OF_LOAD + 1)
    assert driver.of_load(2) == first
    other.ran(FIRST_OF_LOAD)
    worker.ran(3)
    assert driver.of_load(2) == sorted(driver.of_load(2))
    assert (len(driver.of_load(2)), driver.singles()) == (2, 1)


def test_ratios_are_of_the_same_repeat() -> None:
    ours = Row("ours", "", "", [Outcome(3000, 1, 1, 1), Outcome(1000, 1, 1, 1)])
    peer = Row("peer", "", "", [Outcome(1000, 1, 1, 1), Outcome(500, 1, 1, 1)])
    assert peer.ratios(ours, lambda each: each.a_second) == [2.0, 3.0]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_its_file_and_says_what_it_may_lose(peer: Peer) -> None:
    assert (APPS / f"{peer.app}.py").exists()
    assert peer.settings
    assert peer.loss


def test_requirements_are_hashed_and_name_no_index() -> None:
    lines = REQUIREMENTS.read_text().splitlines()
    assert any("--hash=sha256:" in line for line in lines)
    assert not any("index" in line or "://" in line for line in lines)
