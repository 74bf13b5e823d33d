"""Secrets appear in no log, answer or record, at `--log-level debug` either."""

from tests.e2e.processes import STOP_SECONDS, ControlPlane

MARK = "MaRkEd"


def test_what_is_shown_in_a_wrong_place_turns_up_nowhere(control_plane: ControlPlane) -> None:
    url = f"postgresql://ao:{MARK}@127.0.0.1:notaport/ao"
    bad = control_plane.ao("server", "--log-level", "debug", "--data-dir", "other", "--database-url", url)
    assert bad.end(STOP_SECONDS) == 2
    dev = control_plane.start_dev("--log-level", "debug")
    with control_plane.client() as client:
        answers = [
            client.get("/agents", headers={"Authorization": f"Bearer {MARK}"}),
            client.get("/agents", headers={"Authorization": f"Basic {MARK}"}),
            client.get(f"/agents?token={MARK}", headers={"Authorization": ""}),
            client.get(f"/tasks/ao_live_{MARK}"),
            client.post(f"/tasks/ao_live_{MARK}/cancel"),
            client.post("/agents", json={"name": 1, "type": MARK}, headers={"Idempotency-Key": MARK}),
            client.post("/tasks", content=b'{"payload": {"key": "' + MARK.encode()),
            client.get("/audit/export"),
            client.get("/metrics"),
        ]
    dev.stop()
    told = [bad.errors, *bad.lines, dev.errors, *dev.lines, *(answer.text for answer in answers)]
    assert [text for text in told if MARK in text] == []
