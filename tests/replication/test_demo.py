"""`starbase demo`: it shows a shop and its replica, for people and for programs, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx


def test_the_demo_prints_the_same_facts_in_json(tmp_path: Path) -> None:
    # It has its own configuration: a file that lies there and names an unset variable must not stop it.
    tmp_path.joinpath("plugin.toml").write_text(
        '[host]\nadmin_token = "${SURELY_NOT_SET}"\n[plugins.data_replication]\n'
    )
    command = [sys.executable, "-m", "starbase_host.cli", "demo", "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        # On a busy machine the first sync is still running when the second is due.
        while (last := json.loads(process.stdout.readline())).get("run", {}).get("status") == "skipped":
            pass
        events.append(last)
        headers = {"authorization": f"Bearer {events[1]['admin_token']}"}
        assert httpx.get(events[1]["url"] + "/status", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        events += [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    assert [each["event"] for each in events[:3]] == ["starting", "listening", "run"]
    assert (events[2]["run"]["config_name"], events[2]["run"]["status"]) == ("orders", "success")
    assert events[2]["rows"] >= events[2]["run"]["records_processed"]
    assert events[-1] == {"event": "stopped"}


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "starbase_host.cli", "demo", "--port", port]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    why = "Address already in use; choose another with --port"
    assert ran.stderr == f"starbase: demo cannot listen on port {port}: {why}\n"
