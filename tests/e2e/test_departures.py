"""Clients that go without a word."""

import socket
import struct
from contextlib import ExitStack
from itertools import islice

from tests.e2e.processes import ControlPlane

RESET = struct.pack("ii", 1, 0)


def test_watchers_that_go_while_they_are_written_to_leave_no_traceback(control_plane: ControlPlane) -> None:
    dev = control_plane.start_dev()
    request = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {control_plane.api_key}\r\n\r\n"
    with control_plane.client() as client, ExitStack() as stack:
        agent_id = client.post("/agents", json={"name": "A", "type": "t"}).json()["data"]["id"]
        for _ in range(10):
            watcher = stack.enter_context(socket.socket())
            watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            watcher.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            watcher.connect(("127.0.0.1", control_plane.port))
            watcher.sendall(request.encode())
            assert watcher.recv(12) == b"HTTP/1.1 200"
        task = {"agent_id": agent_id, "type": "work", "labels": {"a": "x" * 250}}
        with client.stream("GET", "/events") as healthy:
            lines = healthy.iter_lines()
            for _ in range(4):
                assert client.post("/tasks/bulk", json={"tasks": [task] * 1000}).status_code == 201
            created = (line for line in lines if line == "event: task_created")
            assert sum(1 for _ in islice(created, 4000)) == 4000
            stack.close()
        assert client.post("/tasks", json=task).status_code == 201
    assert dev.stop() == 0
    assert "Traceback" not in dev.errors
