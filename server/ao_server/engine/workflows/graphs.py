"""Compiled versions of workflows, kept in memory: a version never changes."""

import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from ao_server.engine.workflows import definition
from ao_server.engine.workflows.definition import Graph

# Nodes of all graphs together.
MOST_NODES: Final = 50_000


class VersionKey(NamedTuple):
    """A version of a workflow."""

    project_id: str
    workflow_id: str
    version: int


class Graphs:
    """Those that were asked for last. The writer's thread and the event loop share it."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[VersionKey, Graph] = OrderedDict()
        self._nodes = 0
        self._lock = threading.Lock()

    def get(self, key: VersionKey) -> Graph | None:
        """The graph, None when it is not known here."""
        with self._lock:
            graph = self._graphs.get(key)
            if graph is not None:
                self._graphs.move_to_end(key)
            return graph

    def add(self, key: VersionKey, steps: str) -> Graph:
        """Compiles the steps of a version, as the store has them."""
        graph = definition.compiled(definition.decode(steps))
        with self._lock:
            if key not in self._graphs:
                self._nodes += len(graph.nodes)
            self._graphs[key] = graph
            while self._nodes > MOST_NODES and len(self._graphs) > 1:
                _, oldest = self._graphs.popitem(last=False)
                self._nodes -= len(oldest.nodes)
        return graph
