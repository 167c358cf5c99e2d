"""The adapter holds DeepSpeed to what it assumes: each broken assumption is one line that names the tested versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from tests.pretrain.world import ROOT

pytestmark = pytest.mark.e2e

MEANINGS = {
    "_get_norm_groups": "_get_norm_groups is not a method",
    "averaged_gradients": "averaged_gradients is not an empty dictionary before the first backward pass",
    "fp16_groups": "fp16_groups does not hold every parameter once",
    "fp32_partitioned_groups_flat": "fp32_partitioned_groups_flat does not hold one flat float32 tensor per group",
    "grad_partitions_flat_buffer": "grad_partitions_flat_buffer is not one float32 gradient per element",
    "lp_param_buffer": "lp_param_buffer does not hold every parameter's elements in its own type",
    "ipg_buckets": "ipg_buckets is not a dictionary of buckets with a buffer",
    "optimizer": "the optimizer's optimizer is not torch's",
    "param_groups": "a group of param_groups has no lr",
    "ds_numel": "a parameter's ds_tensor is not an equal share of its ds_numel elements",
    "ds_tensor": "a parameter's ds_tensor is not an equal share of its ds_numel elements",
    "ds_persist": "a parameter's ds_persist is not true or false",
    "norms": "_get_norm_groups does not return one norm per parameter group",
    "gradients": "averaged_gradients does not hold one gradient per parameter",
    "step": "step does not decide by the norms of _get_norm_groups",
}
ATTRIBUTES = {
    "the engine": "module backward step was_step_applied set_gradient_accumulation_boundary",
    "the optimizer": "_get_norm_groups averaged_gradients fp16_groups fp32_partitioned_groups_flat "
    "grad_partitions_flat_buffer ipg_buckets lp_param_buffer offload_optimizer offload_param optimizer param_groups "
    "checkpoint_event_prologue checkpoint_event_epilogue",
    "parameters": "ds_numel ds_persist ds_tensor",
}


@pytest.fixture(scope="module")
def found() -> Any:
    port = str(20_000 + (os.getpid() + 7) % 20_000)
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "pretrain")]),
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [sys.executable, str(ROOT / "tests" / "pretrain" / "adapter_rank.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_skipped_step_changes_nothing_and_an_update_follows_the_norm(found: Any) -> None:
    norm, norm_again = found["intact"]["norms"]
    assert norm == norm_again > 0
    assert found["intact"]["skipped"] == [True, 0]
    assert found["intact"]["updated"] == [True, 1]


@pytest.mark.parametrize("name", MEANINGS)
def test_an_attribute_that_means_something_else_is_named(found: Any, name: str) -> None:
    _is_one_line(found["errors"][name], MEANINGS[name])


@pytest.mark.parametrize(("owner", "name"), [(o, n) for o, names in ATTRIBUTES.items() for n in names.split()])
def test_an_attribute_that_is_gone_is_named(found: Any, owner: str, name: str) -> None:
    verb = "have" if owner == "parameters" else "has"
    _is_one_line(found["errors"][f"no {name}"], f"{owner} {verb} no {name}")


def _is_one_line(error: str | None, problem: str) -> None:
    assert error is not None
    assert error.startswith(f"DeepSpeed = '{version('deepspeed')}': {problem}")
    assert error.endswith("; tested versions: 0.19.8. Hint: install a tested version: pip install deepspeed==0.19.8.")
    assert "\n" not in error
