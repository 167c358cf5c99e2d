"""DeepSpeed's hostfile: read as DeepSpeed reads it, every mistake with file, line and hint."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipe import load_recipe
from launch.cluster.hostfile import Host, check, most_nodes, read, write
from tests.launch.conftest import SMOKE
from twofold.errors import UserError


def test_hosts_are_read_comments_and_empty_lines_aside(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text("# the good ones\nnode01 slots=8\n\nnode02  slots=4  # half\n")
    assert read(path) == (Host("node01", 8), Host("node02", 4))


@given(st.lists(st.from_regex(r"[a-z][a-z0-9.-]{0,15}", fullmatch=True), min_size=1, max_size=20, unique=True))
def test_what_is_written_is_what_deepspeed_reads(names: list[str]) -> None:
    from tempfile import TemporaryDirectory

    from deepspeed.launcher.runner import fetch_hostfile

    with TemporaryDirectory() as folder:
        path = Path(folder) / "hostfile"
        hosts = [Host(name, number + 1) for number, name in enumerate(names)]
        write(path, hosts)
        assert list(read(path)) == hosts
        assert dict(fetch_hostfile(str(path))) == {host.name: host.slots for host in hosts}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node01 slots=8\nnode01 slots=8\n", "line 2 = 'node01': appears twice"),
        ("node01 8\n", "line 1 = 'node01 8': is not `HOST slots=N`"),
        ("node01 slots=0\n", "is not `HOST slots=N`"),
        ("node01 slots=eight\n", "is not `HOST slots=N`"),
        ("node01\n", "is not `HOST slots=N`"),
        ("-oProxyCommand=reboot slots=8\n", "is not `HOST slots=N`"),
        ("$(reboot) slots=8\n", "is not `HOST slots=N`"),
        ("# nobody\n", "lists no hosts"),
        ("", "lists no hosts"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "hostfile"
    path.write_text(text)
    with pytest.raises(UserError, match="hostfile") as caught:
        read(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "hostfile"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


def test_too_few_hosts_and_too_few_slots_are_all_told() -> None:
    with pytest.raises(UserError) as caught:
        check((Host("a", 8), Host("b", 4)), 3, 8, "hostfile")
    told = str(caught.value)
    assert "host b" in told
    assert "fewer than the 8 ranks per node" in told
    assert "is fewer hosts than launch.nodes 3" in told
    check((Host("a", 8), Host("b", 8), Host("c", 1)), 2, 8, "hostfile")


def test_the_most_nodes_over_which_every_batch_divides() -> None:
    """1,024 sequences in micro-batches of 2 over nodes of 8: 64 and 32 nodes, not what lies between."""
    recipe = load_recipe("configs/exaone3_7p8b.yaml")
    assert [most_nodes(recipe, nodes, 8) for nodes in (70, 64, 63, 33, 32)] == [64, 64, 32, 32, 32]
    assert most_nodes(recipe, 31, 8) is None
    assert most_nodes(load_recipe(SMOKE), 0, 2) is None
