"""`twofold plan --gpus`: what it recommends, what it refuses, its page; and constants measured and read again."""

from __future__ import annotations

import json
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from configs.recipe import load_recipe
from launch.actions.gpu_plan import render, sweep
from launch.planner import hardware, measured, times
from launch.planner.estimate import divisors_of_batches, estimate, setting_of
from launch.planner.hardware import GPUS, Constants
from tests.launch.conftest import SMOKE, TINY_TRAINING, twofold
from twofold.errors import UserError

EXAONE = "configs/exaone3_7p8b.yaml"
H100 = GPUS["h100"]


def test_what_is_recommended_fits_divides_and_loads_as_a_recipe() -> None:
    recipe = load_recipe(EXAONE)
    for ranks in (8, 64, 512):
        found = estimate(recipe, ranks, H100, Constants())
        best = found.best
        assert best.fits
        assert not best.zero_plus
        assert best.footprint.total <= H100.memory_bytes
        assert best.tps >= max(way.tps for way in found.ways if not way.zero_plus)
        again = load_recipe(EXAONE, best.overrides(recipe, H100))
        assert again.launch.nodes * again.launch.gpus_per_node == ranks
        assert again.engine.micro_batch_size == best.setting.sequences
        assert sum(phase.tokens for phase in found.phases) == sum(phase.trained_tokens for phase in recipe.phases)
        assert found.device_hours == pytest.approx(24 * ranks * found.days)


def test_more_devices_take_fewer_days() -> None:
    recipe = load_recipe(EXAONE)
    days = [one.days for one in sweep(recipe, H100, Constants())]
    assert days == sorted(days, reverse=True)
    assert len(days) >= 8


def test_micro_batches_divide_every_batch_of_a_ramp() -> None:
    ramp = "phases.general.rampup_batch_size=[{until: 50B, global_batch_size: 1_048_576}]"
    assert divisors_of_batches(load_recipe(EXAONE), 64) == [1, 2, 4, 8, 16]
    assert divisors_of_batches(load_recipe(EXAONE, ["launch.nodes=8", "launch.min_nodes=8", ramp]), 64) == [1, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--gpus", "0"), "--gpus = 0: must be a positive integer"),
        (("--gpus", "8", "--gpu", "h1000"), "--gpu = 'h1000': is not in the planner's table. Hint: use one of h100,"),
        (("--gpus", "2048"), "is 1024 sequences, which do not divide over 2048 devices"),
        (("--gpus", "96"), "use 64 devices, or a batch of"),
        (("--gpus", "1"), "do not hold the model"),
        (("--gpus", "8", "--constants", "nowhere.json"), "does not exist"),
        (("--gpus", "8", "--constants", EXAONE), "is not a constants file"),
    ],
)
def test_what_cannot_be_planned_is_named_with_a_hint(arguments: tuple[str, ...], says: str) -> None:
    code, out, err = twofold("plan", EXAONE, *arguments)
    assert code == 2, out + err
    assert says in err
    assert "Hint:" in err
    assert "Traceback" not in err


def test_the_hints_are_true() -> None:
    recipe = load_recipe(EXAONE)
    with pytest.raises(UserError, match="use 1024 devices, or a batch of 8388608 tokens"):
        estimate(recipe, 2048, H100, Constants())
    estimate(recipe, 1024, H100, Constants())
    larger = load_recipe(
        EXAONE, ["phases.general.global_batch_size=8_388_608", "phases.domain.global_batch_size=8_388_608"]
    )
    estimate(larger, 2048, H100, Constants())
    with pytest.raises(UserError, match="use 4 of them"):
        estimate(recipe, 1, H100, Constants())
    estimate(recipe, 4, H100, Constants())
    with pytest.raises(UserError, match="do not hold"):
        estimate(recipe, 2, H100, Constants())


def test_tables_page_and_json_say_the_same(tmp_path: Path) -> None:
    page, out = tmp_path / "plan.html", tmp_path / "plan.json"
    code, shown, err = twofold("plan", EXAONE, "--gpus", "512", "--out", str(page), "--json", str(out))
    assert code == 0, err
    told = json.loads(out.read_text())
    assert told["status"] == "computed"
    for text in (shown, page.read_text()):
        assert f"{told['recommended']['tps_per_gpu']:,.0f}" in text
        assert f"{told['days']:,.1f}" in text
        assert " ".join(told["recommended"]["overrides"]) in text
    assert set(hardware.ASSUMED) == {row["constant"] for row in told["constants"]}
    assert {row["status"] for row in told["constants"]} == {"assumed"}


def test_the_page_is_self_contained_and_escaped() -> None:
    recipe = load_recipe(EXAONE)
    recipe = recipe.model_copy(update={"name": "<script>x</script>"})
    found = estimate(recipe, 8, H100, Constants())
    page = render(recipe, found, [found], Constants())
    assert "<script" not in page
    sources: list[str | None] = []

    class Seen(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            sources.extend(value for name, value in attributes if name in ("src", "href") and value[:1] != "#")  # type: ignore[index]

    Seen().feed(page)
    assert sources == []


def _profile(recipe: Any, fixed: float, factor: float) -> dict[str, Any]:
    """What a device would tell whose passes are `factor` times the model's and `fixed` seconds more."""
    rates = {
        "products_flops": 3e11,
        "attention_flops": 4e10,
        "copy_bytes_per_s": 1e10,
        "link_bytes_per_s": 1e8,
        "collective_s": 5e-4,
    }
    found: dict[str, Any] = {
        "kind": "cpu",
        "device": "cpu",
        "ranks": 2,
        "memory_bytes": 12 << 30,
        "rates": rates,
        "seconds": {"micro_batch": {"4": 1.0, "8": 2.0}, "update": 1.0},
    }
    constants = measured.constants_of(recipe, found)
    plain = Constants(**{**asdict(constants), "pass_factor": 1.0, "measured": {}, "device": constants.device})
    assert constants.device is not None
    found["seconds"]["micro_batch"] = {
        str(sequences): fixed + factor * measured.modelled_pass(recipe, 2, constants.device, plain, sequences)
        for sequences in (4, 8)
    }
    return found


def test_what_a_pass_takes_beyond_its_parts_is_found_again() -> None:
    recipe = load_recipe(SMOKE, ["launch.device=cpu"])
    constants = measured.constants_of(recipe, _profile(recipe, fixed=0.02, factor=1.7))
    assert constants.pass_factor == pytest.approx(1.7)
    assert constants.micro_batch_s == pytest.approx(0.02)
    slower = measured.constants_of(recipe, _profile(recipe, fixed=-0.01, factor=1.7))
    assert slower.micro_batch_s == 0.0


def test_constants_are_read_as_they_were_written(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE, ["launch.device=cpu"])
    constants = measured.constants_of(recipe, _profile(recipe, 0.02, 1.2))
    hardware.write(tmp_path / "c.json", constants, {"date": "2026-11-24"})
    assert hardware.read(tmp_path / "c.json") == constants
    gpu = hardware.gpu("measured", constants)
    setting = setting_of(recipe, 2, gpu, 8, "nothing")
    assert setting.cpu
    assert not setting.compiled
    step = times.step_time(recipe.model, recipe.tokenizer.vocab_size, setting, gpu, constants, 1, False)
    assert step.total > constants.micro_batch_s


def test_an_h100_that_was_measured_keeps_its_datasheet() -> None:
    recipe = load_recipe(SMOKE, ["launch.device=cpu"])
    found = _profile(recipe, 0.0, 1.0)
    found |= {"kind": "cuda", "device": "NVIDIA H100 80GB HBM3"}
    found["rates"] |= {"products_flops": 700e12}
    constants = measured.constants_of(recipe, found)
    assert constants.device == H100
    assert constants.matmul_share == pytest.approx(700 / 989)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("device", "memory_gib", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100"),
        ("NVIDIA A100-SXM4-40GB", 39.5, "a100-40gb"),
        ("NVIDIA GB200", 184.0, "gb200"),
        ("NVIDIA B200", 178.0, "b200"),
    ],
)
def test_a_device_is_known_by_its_name_and_its_memory(device: str, memory_gib: float, name: str) -> None:
    found = {"kind": "cuda", "device": device, "memory_bytes": int(memory_gib * 2**30)}
    assert measured._device(found).name == name


def test_a_real_profile_of_this_machine(tmp_path: Path) -> None:
    out = tmp_path / "constants.json"
    told = (f"run_dir={tmp_path / 'run'}", *TINY_TRAINING)
    code, shown, err = twofold("plan", str(SMOKE), "--profile-hardware", str(out), *told)
    assert code == 0, shown + err
    constants = hardware.read(out)
    assert constants.device is not None
    assert constants.device.kind == "cpu"
    assert constants.pass_factor > 0
    code, shown, err = twofold(
        "plan",
        str(SMOKE),
        "--gpus",
        "2",
        "--gpu",
        "measured",
        "--constants",
        str(out),
        *told,
        "--out",
        str(tmp_path / "page.html"),
    )
    assert code == 0, shown + err
    assert "2 x measured, computed" in shown


@pytest.mark.parametrize("name", sorted(GPUS))
def test_every_device_of_the_table_has_a_plan(name: str) -> None:
    found = estimate(load_recipe(EXAONE), 512, GPUS[name], Constants())
    assert found.best.fits
