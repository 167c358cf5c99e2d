"""Windows hold equal bytes of every tokenizer, runs are repeatable and not made twice, intervals are Student's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import tokenizer_ablation as ablation
from benchmarks import tokenizer_variants
from configs.schema import Model
from tokenizer.encoder import Encoder
from twofold.special_ids import EOS_ID, PAD_ID

ROWS = [
    "바람이 불면 마을 사람들은 항구로 나가 배를 살폈다.",
    "def area(width, height):\n    return width * height\n",
    "the boats " * 9,
]
TINY = Model(d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=32, max_sequence_length=256)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Two arms over a corpus of three sources."""
    scratch = tmp_path_factory.mktemp("ablation")
    sources = ("x/ko", "x/en", "x/code/py")
    for source, text in zip(sources, ROWS, strict=True):
        path = scratch / "corpus" / source / "0000.jsonl"
        path.parent.mkdir(parents=True)
        rows = [{"id": f"{source}/{n}", "text": f"{text}{n}", "lang": Path(source).name} for n in range(200)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "SOURCES", sources)
        patch.setattr(ablation, "ARMS", ("exaone3-code", "superbpe"))
        return ablation.prepared(scratch / "corpus", scratch, ablation.Settings(20_000, vocab_size=300))


@pytest.fixture(scope="module")
def encoder(prepared: dict[str, tuple[Path, Path]]) -> tuple[Encoder, np.ndarray]:
    folder, _ = prepared["exaone3-code"]
    return Encoder(folder), np.load(folder / "token_bytes.npy").astype(np.int64)


@settings(max_examples=40)
@given(rows=st.lists(st.text(max_size=40), max_size=6), window_bytes=st.integers(1, 50))
def test_windows_hold_the_tokens_that_begin_in_equal_bytes(encoder: Any, rows: list[str], window_bytes: int) -> None:
    windows = ablation.windows_of(*encoder, rows, window_bytes)
    expected: list[list[int]] = []
    at = 0
    for ids in encoder[0].encode(rows):
        for number in (*ids, EOS_ID):
            expected += [[] for _ in range(at // window_bytes + 1 - len(expected))]
            expected[at // window_bytes].append(number)
            at += int(encoder[1][number])
    assert len(windows) == at // window_bytes
    assert [window.tolist() for window in windows] == [*expected, []][: len(windows)]


def test_a_batch_predicts_each_token_once_after_an_end(encoder: Any) -> None:
    inputs, targets = ablation.batch_of([np.array([5, 6, 7]), np.array([8])])
    assert inputs.tolist() == [[EOS_ID, 5, 6], [EOS_ID, 8, PAD_ID]]
    assert targets.tolist() == [[5, 6, 7], [8, PAD_ID, PAD_ID]]


def test_what_pads_a_window_counts_for_nothing(encoder: Any) -> None:
    torch.manual_seed(0)
    model = ablation.Decoder(TINY, encoder[0].vocab_size)
    whole = ablation.windows_of(*encoder, ROWS, 40)
    setting = ablation.Settings(1, window_bytes=40, batch_windows=len(whole))
    together = ablation.bits_per_byte(model, whole, setting)
    alone = ablation.bits_per_byte(model, whole, replace(setting, batch_windows=1))
    assert together == pytest.approx(alone, rel=1e-2)  # bf16
    assert together > 0


def test_a_run_is_repeatable_and_learns(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "MODEL", TINY)
    folder, text = prepared["superbpe"]
    setting = ablation.Settings(20_000, window_bytes=128, batch_windows=4, vocab_size=300, d_model=16)
    run = ablation.Run("superbpe", 1, setting, folder, text)
    first, again = ablation.train(run), ablation.train(run)
    other = ablation.train(replace(run, seed=2))
    assert first["bits_per_byte"] == again["bits_per_byte"] != other["bits_per_byte"]
    untrained = ablation.train(replace(run, settings=replace(setting, peak=0.0)))
    for label in ablation.SHARES:
        assert first["bits_per_byte"][label] < untrained["bits_per_byte"][label]
    assert first["tokens"] > 0
    assert {"arm", "seed", "train_bytes", "device"} <= first.keys()


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [ablation.rate(step, 200) for step in range(200)]
    assert rates[9] == max(rates) == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def rows_of(setting: ablation.Settings) -> list[dict[str, Any]]:
    """Finished runs of two seeds: MeCab's are better by 0.1 and 0.3."""
    rows = []
    for arm in ablation.ARMS:
        for seed in (1, 2):
            better = (0.1, 0.3)[seed - 1] if "MeCab" in arm else 0.0
            run = ablation.Run(arm, seed, setting, Path(), Path())
            bits = dict.fromkeys(ablation.SHARES, 2.0 + seed - better)
            rows.append({**run.key, "bits_per_byte": bits, "tokens": 1_000, "parameters": 4_700_000})
    return rows


def test_finished_runs_are_not_made_again(prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = ablation.Settings(20_000, vocab_size=300)
    results = tmp_path / "runs.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows_of(setting)))
    monkeypatch.setattr(ablation, "prepared", lambda *_: dict.fromkeys(ablation.ARMS, (Path(), Path())))
    before = results.read_bytes()
    ablation.main(
        [
            "--results",
            str(results),
            "--seeds",
            "2",
            "--megabytes",
            "0.02",
            "--vocab-size",
            "300",
            "--json",
            str(tmp_path / "out.json"),
            "--docs",
            str(tmp_path),
        ]
    )
    assert results.read_bytes() == before
    out = json.loads((tmp_path / "out.json").read_text())
    assert out["ours"] == {"exaone3-code": dict.fromkeys(ablation.SHARES, 3.5)}
    assert out["ratio"]["exaone3-code, MeCab"]["ko"] == pytest.approx(3.3 / 3.5)
    page = (tmp_path / "tokenizer-ablation.md").read_text()
    # Student's t with one degree of freedom: 12.706 times 0.1414 / sqrt(2).
    assert "| – difference | -0.2000 ± 1.2706 |" in page
    assert "tokenizer-ablation.svg" in page
    assert (tmp_path / "tokenizer-ablation.svg").read_text().startswith("<svg")


def test_one_seed_has_no_interval() -> None:
    assert ablation._interval([1.5]) == "1.5000"


def test_arms_are_variants() -> None:
    assert set(ablation.ARMS) <= set(tokenizer_variants.VARIANTS)
