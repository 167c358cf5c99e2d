"""`twofold preflight`: what it finds, all at once, each with its hint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from configs.recipe import load_recipe
from launch.actions.preflight import SLOW_LINK, _seconds, slow_links
from pretrain.hooks.wandb_mirror import check_key
from tests.launch.conftest import SMOKE, twofold
from twofold.errors import UserError


def test_slow_links_are_named_by_their_hosts(tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(f"node{number} slots=1\n" for number in range(4)))
    recipe = load_recipe(
        SMOKE, ["launch.device=cpu", "launch.cpu_ranks=1", "launch.nodes=4", f"launch.hostfile={hostfile}"]
    )
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    links = [{"nodes": [a, b], "bytes_per_s": 1e9 * (1 + 0.02 * a)} for a, b in pairs]
    assert slow_links(recipe, {"links": links}) == []
    links[pairs.index((1, 3))]["bytes_per_s"] = 1e9 * SLOW_LINK * 0.9
    (problem,) = slow_links(recipe, {"links": links})
    assert str(problem).startswith("link node1 – node3: moves 630.0 MB per second; the median of all pairs is 1.0 GB")
    assert slow_links(recipe, {"links": []}) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("1-02:03:04", 93_784), ("2:00", 120), ("59:59", 3599), ("UNLIMITED", None), ("", None)]
)
def test_slurms_time_left(text: str, seconds: int | None) -> None:
    assert _seconds(text) == seconds


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A W&B server that knows no key."""

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b'{"error": "invalid API key"}'
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_wrong_wandb_key(refusing_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="W&B key") as caught:
        check_key()
    assert "wandb login" in str(caught.value)
    assert "0" * 40 not in str(caught.value)


def test_a_file_where_the_run_folder_must_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in ("preflight", "run"):
        code, out, err = twofold(command, str(SMOKE), "launch.device=cpu", f"run_dir={tmp_path / 'file'}")
        assert code == 2, out + err
        assert "is a file where a folder must be" in err


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """A folder that cannot be written, and a trap of DeepSpeed's."""
    (tmp_path / "file").touch()
    code, out, err = twofold(
        "preflight", str(SMOKE), "launch.device=cpu", f"run_dir={tmp_path / 'file' / 'run'}",
        "engine.deepspeed={zero_optimization: {stage: 2}}", "--no-dry-run",
    )  # fmt: skip
    assert code == 2, out + err
    assert "Traceback" not in out + err
    for says in ("leads through a file", "zero_optimization"):
        assert says in err, says
    assert "not requested" in out
