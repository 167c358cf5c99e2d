"""Every way of backends.py under real DeepSpeed ZeRO-3 with two gloo ranks, against a plain float32 loop."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import backend_ranks
import pytest
import torch
import world
from safetensors.torch import load_file

from pretrain.model.decoder import Decoder, initial_weights

pytestmark = pytest.mark.e2e

COMPILED = [name for name, kernels in backend_ranks.WAYS.items() if kernels.compiler]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ways")
    places = os.pathsep.join([str(world.ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    shared = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": places,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20_000 + os.getpid() % 20_000),
    }
    command = [sys.executable, "-m", "backend_ranks", str(folder)]
    logs = [folder / f"rank-{rank}.log" for rank in range(2)]
    with logs[0].open("w") as first, logs[1].open("w") as second:
        processes = [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=log, stderr=log
            )
            for rank, log in enumerate((first, second))
        ]
        codes = [process.wait(timeout=240) for process in processes]
    assert codes == [0, 0], logs[0].read_text()[-4000:]
    return folder


@pytest.fixture(scope="module")
def seen(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "rank-0.json").read_text())
    return loaded


@functools.cache
def _plain_loop(linear: type[torch.nn.Linear]) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Loss, log²(Z) and gradients of the whole batch at once, without DeepSpeed."""
    cfg = backend_ranks.recipe().model
    model = Decoder(cfg, world.VOCAB, linear=linear)
    model.load_state_dict(dict(initial_weights(cfg, world.VOCAB, 3)))
    tokens = backend_ranks.batch()
    losses, z_losses = [], []
    for micro in tokens.split(backend_ranks.recipe().engine.micro_batch_size):  # float8 scales by micro-batch
        logits = model(micro[:, :-1], None, True)
        losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), micro[:, 1:].flatten()))
        z_losses.append(logits.logsumexp(-1).square().mean())
    loss, z_loss = torch.stack(losses).mean(), torch.stack(z_losses).mean()
    (loss + backend_ranks.Z_WEIGHT * z_loss).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return loss.item(), z_loss.item(), gradients  # type: ignore[return-value]


@pytest.mark.parametrize("way", backend_ranks.WAYS)
def test_losses_and_gradients_equal_a_plain_loop(way: str, out: Path, seen: Any) -> None:
    kernels = backend_ranks.WAYS[way]
    loss, z_loss, gradients = _plain_loop(kernels.linear)
    # In float8 a last bit of float32 may decide to which of two numbers a third is rounded.
    limit = 1e-2 if kernels.float8 else 1e-5
    other = json.loads((out / "rank-1.json").read_text())[way]["losses"]
    means = [(mine + theirs) / 2 for mine, theirs in zip(seen[way]["losses"], other, strict=True)]
    assert means == pytest.approx([loss, z_loss], rel=limit)
    found = load_file(out / f"{way}.safetensors")
    assert found.keys() == gradients.keys()
    for name, expected in gradients.items():
        error = (found[name] - expected).norm() / expected.norm()
        assert error < limit, (name, error)
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert seen[way]["norm"] == pytest.approx(norm, rel=limit)


@pytest.mark.parametrize("way", COMPILED)
def test_one_graph_serves_all_blocks(way: str, seen: Any) -> None:
    """Three blocks, the last norm, two element-wise parts of the head: four graphs; a shape more, a graph more."""
    assert seen[way]["graphs"] == 4
    assert seen[way]["breaks"] == {}
    assert seen[way]["graphs_after"] == 5  # without a mask; validation and continuations are not compiled


@pytest.mark.parametrize("way", backend_ranks.WAYS)
def test_no_gathered_weight_is_left_after_a_step(way: str, seen: Any) -> None:
    assert seen[way]["applied"]
    assert seen[way]["status"] == ["NOT_AVAILABLE"]


@pytest.mark.parametrize("way", backend_ranks.WAYS)
def test_no_saved_activation_holds_a_gathered_weight(way: str, seen: Any) -> None:
    assert seen[way]["kept"] == []


def test_accumulating_never_waits_for_the_device(seen: Any) -> None:
    assert [seen[way]["waits"] for way in backend_ranks.WAYS if way not in COMPILED] == [0]


def test_validation_says_the_same_by_every_way(seen: Any) -> None:
    losses = [way["validation"] for way in seen.values()]
    assert losses[:-1] == pytest.approx([losses[0]] * (len(losses) - 1), rel=1e-5)
    assert losses[-1] == pytest.approx(losses[0], rel=1e-3)  # float8
