"""docs/performance.md names each peer with the settings and losses that it is measured with."""

from benchmarks.peers import ours
from benchmarks.peers.catalog import PEERS
from tests.docs.tables import table


def test_settings_and_losses_are_those_that_are_measured() -> None:
    measured = [("ours", ours.SETTINGS, ours.LOSS), *((peer.name, peer.settings, peer.loss) for peer in PEERS)]
    assert [tuple(row) for row in table("performance.md", "queue")] == measured
