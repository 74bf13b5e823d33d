"""A lost admin key: who owns the data folder makes another one."""

from tests.e2e.processes import STOP_SECONDS, ControlPlane


def test_a_lost_admin_key_is_replaced_on_the_machine_with_the_server_stopped(control_plane: ControlPlane) -> None:
    server = control_plane.start_dev()
    lost = control_plane.api_key
    refused = control_plane.ao("admin-key", "--data-dir", str(control_plane.data_dir))
    assert refused.end(STOP_SECONDS) == 2
    assert refused.errors == f"error: another server uses the data folder {control_plane.data_dir}: stop it first\n"
    server.stop()
    made = control_plane.ao("admin-key", "--data-dir", str(control_plane.data_dir), "--revoke-others")
    key = made.line("API key ")
    assert made.end(STOP_SECONDS) == 0
    assert control_plane.api_key == key != lost
    assert (control_plane.data_dir / "admin.key").stat().st_mode & 0o777 == 0o600
    control_plane.start_dev()
    with control_plane.client() as client:
        records = client.get("/audit", params={"actor_id": "local"}).json()["data"]
        assert [each["action"] for each in records] == ["RevokeKey", "RecoverAdminKey"]
        client.headers["Authorization"] = f"Bearer {lost}"
        assert client.get("/audit").status_code == 401
