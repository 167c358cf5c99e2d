"""The GPU benchmark counts right, survives what fails, and measures the same model as its peers; at toy size on CPU."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import gpu_account, gpu_cases, gpu_data, gpu_machine, gpu_plain, train_gpu
from benchmarks.gpu_account import CLASSES, IDLE, Slice
from benchmarks.gpu_cases import Case
from benchmarks.gpu_process import Runner
from pretrain.model.decoder import Decoder
from pretrain.model.sizes import n_parameters
from tokenizer.shards import read_index

TINY = Case("ours", device="cpu", tiny=True, layers=2, sequences=4, warmup=2, steps=2)

KERNELS = {
    "attention": [
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0",
        "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<pytorch_flash::Flash_bwd_kernel_traits<128>>",
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<…>>>",
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ],
    "matrix products": [
        "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel",
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_nn_align8>",
        "ampere_bf16_s16816gemm_bf16_128x256_ldg8_f2f_stages_64x3_tn",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
        "triton_tem_fused_mm_3",
        "aten::mm",
        "aten::_scaled_mm",
    ],
    "norms and element-wise": [
        "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_3",
        "triton_poi_fused_mul_silu_silu_backward_7",
        "triton_poi_fused__scaled_dot_product_cudnn_attention_clone_transpose_2",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>",
    ],
    "loss": [
        "void at::native::(anonymous namespace)::cunn_SoftMaxForwardGmem<8, c10::BFloat16, float, float>",
        "triton_red_fused__log_softmax_nll_loss_forward_1",
        "void at::native::(anonymous namespace)::nll_loss_forward_reduce_cuda_kernel_2d<float, float, long>",
        "liger_cross_entropy_kernel",
    ],
    "optimizer": [
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<…FusedAdamMathFunctor<float, 4, …>>",
        "aten::_fused_adamw_",
    ],
    "gather and partition": ["ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "c10d::allreduce_"],
    "memcpy": ["Memcpy DtoH (Device -> Pinned)", "Memset (Device)", "aten::copy_"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KERNELS.items() for name in names])
def test_a_kernel_is_known_by_its_name(kind: str, name: str) -> None:
    assert gpu_account.classify(name) == kind


def test_inside_zero_copies_and_sums_are_partitioning_but_products_stay_products() -> None:
    assert gpu_account.classify("Memcpy DtoD (Device -> Device)", "zero") == "gather and partition"
    assert gpu_account.classify("at::native::vectorized_elementwise_kernel<add>", "zero") == "gather and partition"
    assert gpu_account.classify("nvjet_tst_128x256", "zero") == "matrix products"
    assert gpu_account.classify("nvjet_tst_128x256", "loss") == "matrix products"
    assert gpu_account.classify("triton_poi_fused_exp_sub_0", "loss") == "loss"
    assert gpu_account.classify("at::native::vectorized_elementwise_kernel<mul>", "update") == "optimizer"


slices = st.builds(
    lambda name, begin, length: Slice(name, "", begin, begin + length),
    st.sampled_from([names[0] for names in KERNELS.values()]),
    st.integers(-20, 100),
    st.integers(0, 40),
)


@given(st.lists(slices, max_size=12))
@settings(max_examples=80)
def test_every_microsecond_has_one_class(pieces: list[Slice]) -> None:
    """The slow way: ask for every microsecond which class is the first that runs."""
    found = gpu_account.account(pieces, 0, 100, steps=1)
    slow = dict.fromkeys((*CLASSES, IDLE), 0)
    for moment in range(100):
        kinds = {gpu_account.classify(p.name) for p in pieces if p.begin <= moment < p.end}
        slow[next((kind for kind in CLASSES if kind in kinds), IDLE)] += 1
    assert {kind: round(1000 * value) for kind, value in found["ms"].items()} == slow
    assert sum(found["ms"].values()) == pytest.approx(found["step_ms"]) == pytest.approx(0.1)


def event(category: str, name: str, begin: float, length: float, thread: int = 1, **arguments: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": length, "tid": thread, "args": arguments}


def test_a_kernel_takes_the_label_of_the_range_that_launched_it() -> None:
    trace = {
        "traceEvents": [
            event("user_annotation", "twofold: passes", 0, 100),
            event("user_annotation", "twofold: zero", 10, 5),
            event("cuda_runtime", "cudaLaunchKernel", 12, 1, correlation=7),
            event("cuda_driver", "cuLaunchKernelEx", 20, 1, correlation=8),
            event("cuda_runtime", "cudaLaunchKernel", 12, 1, thread=2, correlation=9),
            event("kernel", "a", 200, 10, correlation=7, stream=7),
            event("kernel", "b", 210, 10, correlation=8, stream=7),
            event("gpu_memcpy", "c", 220, 10, correlation=9, stream=8),
            event("kernel", "d", 230, 10, correlation=99),
            event("cpu_op", "aten::mm", 0, 50),
        ]
    }
    assert [(piece.name, piece.label) for piece in gpu_account.slices_of(trace)] == [
        ("a", "zero"), ("b", "passes"), ("c", ""), ("d", ""),
    ]  # fmt: skip


def test_without_kernels_the_deepest_operator_has_the_time() -> None:
    outer, inner = event("cpu_op", "aten::linear", 0, 10), event("cpu_op", "aten::mm", 2, 5)
    other = event("cpu_op", "aten::add", 20, 5)
    assert gpu_account.slices_of({"traceEvents": [other, inner, outer]}) == [
        Slice("aten::linear", "", 0, 2), Slice("aten::mm", "", 2, 7), Slice("aten::linear", "", 7, 10),
        Slice("aten::add", "", 20, 25),
    ]  # fmt: skip


@pytest.mark.parametrize("label", gpu_account.LABELLED)
def test_the_methods_that_are_labelled_exist(label: str) -> None:
    for module, classes in gpu_account.LABELLED[label].items():
        for name, methods in classes.items():
            owner = getattr(importlib.import_module(module), name)
            assert [method for method in methods if method not in vars(owner)] == []


@pytest.mark.parametrize(
    ("fits", "guess", "expected", "tried"),
    [
        (10, 10, 10, [10]),
        (7, 10, 7, [10, 9, 8, 7]),
        (40, 20, 32, [20, 32]),  # much is left: once up, never above the model
        (12, 10, 10, [10, 13]),  # the way up did not fit
        (0, 3, None, [3, 2, 1]),
    ],
)
def test_the_search_for_layers(fits: int, guess: int, expected: int | None, tried: list[int]) -> None:
    calls: list[int] = []

    def run(layers: int) -> dict[str, Any]:
        calls.append(layers)
        if layers > fits:
            return {"error": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"}
        left = {(10, 10): 0, (40, 20): 50, (12, 10): 3}.get((fits, guess), 0)
        return {"peak_reserved_bytes": 97 - left}

    assert gpu_cases.most_layers(guess, 100, 1, run) == expected
    assert calls == tried


def test_the_search_ends_at_an_error_that_fewer_layers_do_not_fix() -> None:
    calls: list[int] = []
    assert gpu_cases.most_layers(9, 100, 1, lambda n: calls.append(n) or {"error": "ImportError: no deepspeed"}) is None
    assert calls == [9]


def test_an_h100_is_guessed_to_hold_some_layers_and_an_h200_more() -> None:
    case = Case("ours")
    h100, h200 = (gpu_cases.guessed_layers(case, gib * 2**30) for gib in (79, 140))
    assert 5 <= h100 <= 11 < h200 < 28
    assert gpu_cases.guessed_layers(replace(case, recompute=True), 79 * 2**30) > h100


def test_the_projection_finds_the_line_that_the_seconds_were_made_from() -> None:
    def outcome(layers: int) -> dict[str, Any]:
        case = Case("ours", layers=layers)
        update = 1e-10 * n_parameters(case.model(), case.vocab_size)
        return {"case": case.as_json(), "micro_batch_seconds": 0.05 + 0.02 * layers, "update_seconds": update}

    found = gpu_cases.projection(outcome(4), outcome(8), 989.0)
    assert found["layer_seconds"] == pytest.approx(0.02)
    assert found["embedding_head_loss_seconds"] == pytest.approx(0.05)
    assert found["rest_share_projected"] == pytest.approx(0.05 / 0.69)
    assert found["rest_share_here"] == pytest.approx(0.05 / 0.21)
    assert found["update_seconds_one_rank"] == pytest.approx(0.7820, rel=1e-3)  # 7.82 B parameters
    eight = found["by_ranks_sharing_the_update"]["8"]
    seconds = 8 * 0.69 + 0.782 / 8  # eight micro-batches of two sequences
    assert eight["tps"] == pytest.approx(16 * 4096 / seconds, rel=1e-3)
    assert eight["mfu"] == pytest.approx(eight["tps"] * 50.8e9 / 989e12, rel=2e-3)


def test_the_measured_model_is_the_shipped_one_but_for_its_layers(tmp_path: Path) -> None:
    shipped = gpu_cases.load_recipe(gpu_cases.SHIPPED)
    case = Case("ours", layers=6, masked=True, recompute=True)
    recipe = gpu_cases.recipe(case, tmp_path)
    assert recipe.model.model_copy(update={"n_layers": 32}) == shipped.model
    assert recipe.tokenizer.vocab_size == shipped.tokenizer.vocab_size == 102_400
    assert recipe.optimizer == shipped.optimizer
    assert recipe.phases[0].intra_document_masking
    assert recipe.phases[0].steps > case.all_steps  # the end of a phase would write weights
    assert Case.from_json(json.loads(json.dumps(case.as_json()))) == case


def test_synthetic_shards_hold_documents_of_all_sources(tmp_path: Path) -> None:
    data, _ = gpu_data.write(TINY, tmp_path)
    index = read_index(data)
    assert set(index.tokens("train")) == set(gpu_cases.load_recipe(gpu_cases.SHIPPED).phases[0].mixture)
    assert all(entry.documents > 100 for entry in index.splits["train"].values())


@pytest.mark.parametrize("recompute", [False, True])
def test_the_plain_peer_is_the_same_model(recompute: bool) -> None:
    """Losses and gradients of the peer's decoder and ours, from the same float32 weights."""
    torch.manual_seed(0)
    cfg = TINY.model()
    ours, peer = Decoder(cfg, TINY.vocab_size), gpu_plain.PlainDecoder(cfg, TINY.vocab_size, recompute)
    ours.load_state_dict(peer.state_dict())
    tokens_BU = torch.randint(5, TINY.vocab_size, (2, 33))
    loss = ours(tokens_BU[:, :-1], tokens_BU[:, 1:])[0].mean()
    theirs = gpu_plain._mean_loss(peer(tokens_BU[:, :-1]), tokens_BU[:, 1:])
    loss.backward()
    theirs.backward()
    assert theirs.item() == pytest.approx(loss.item(), rel=1e-6)
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    assert len(gradients) == len(list(ours.parameters()))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("masters", ["float32", "autocast", "none"])
def test_the_plain_peer_learns(masters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_plain, "compile_blocks", lambda *_: None)
    monkeypatch.setattr(gpu_plain, "_compiled", lambda function, _: function)
    monkeypatch.setattr(gpu_plain, "LEARNING_RATE", 1e-2)
    losses = gpu_plain.measure(replace(TINY, contestant="plain", masters=masters, steps=4), None)["losses"]
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.slow
def test_cases_run_and_failures_are_kept(tmp_path: Path) -> None:
    """The real trainer on a toy; a case that cannot be; and a second call that keeps the first one's cases."""
    out = tmp_path / "out.json"
    options = train_gpu._parse(["--json", str(out), "--tiny", "--device", "cpu", "--layers", "2"])
    bench = train_gpu.Bench(options, Runner(tmp_path / "work", minutes=3, case_timeout_s=100))
    ours = bench.run(replace(bench.base, layers=2, warmup=1, steps=2))
    assert ours.get("error") is None, ours
    assert ours["tps"] > 0
    assert len(ours["losses"]) == 3
    assert ours["peak_allocated_bytes"] > ours["memory_stages_bytes"]["before_engine"] > 0
    assert min(ours["micro_batch_seconds"], ours["update_seconds"], ours["step_seconds"]) > 0
    wrong = bench.run(replace(bench.base, layers=2, backend="magic"))
    assert "backend" in wrong["error"]
    written = json.loads(out.read_text(encoding="utf-8"))
    assert {name for name, case in written["cases"].items() if "error" in case} == {
        "ours, bf16, 2 layers, 2 a micro-batch, backend magic"
    }
    assert written["ours"]["bf16"]["tps"] == ours["tps"]
    again = train_gpu.Bench(options, Runner(tmp_path / "more", minutes=0, case_timeout_s=1))
    assert "time was over" in again.run(replace(bench.base, contestant="plain", layers=2))["error"]
    assert len(again.result["cases"]) == 3


def test_the_ratio_is_ours_over_each_peers_best(tmp_path: Path) -> None:
    options = train_gpu._parse(["--tiny", "--device", "cpu", "--layers", "2"])
    bench = train_gpu.Bench(options, Runner(tmp_path, minutes=0, case_timeout_s=1))
    speeds = {
        TINY: 300.0, replace(TINY, micro_batch=1): 200.0, replace(TINY, masked=True): 900.0,
        replace(TINY, layers=1): 900.0, replace(TINY, contestant="plain"): 150.0,
        replace(TINY, contestant="plain", micro_batch=1): 200.0, replace(TINY, contestant="transformers"): 100.0,
    }  # fmt: skip
    for case, speed in speeds.items():
        figures = {"tps": speed, "peak_allocated_bytes": 1}
        bench.result["cases"][case.name] = {"case": case.as_json(), **figures}
    bench.save()
    assert bench.result["ratio"] == {"bf16": {"plain PyTorch, masters float32": 1.5, "transformers": 3.0}}
    assert bench.best_of_ours() == TINY


def test_a_machine_without_a_gpu_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_gpu.main(["--device", "cuda"]) == 2
    assert "finds no CUDA device" in capsys.readouterr().err


def test_a_bare_machine_has_all_that_is_imported() -> None:
    """What the GPU machine lacks and is not carried there must not be needed: everything for data and W&B."""
    script = """
import importlib.abc, sys
absent = "datatrove fasttext resiliparse fastwarc trafilatura py3langid zstandard wandb torchao".split()
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import benchmarks.train_gpu, benchmarks.gpu_ours, benchmarks.gpu_plain, benchmarks.gpu_peers, benchmarks.gpu_machine
"""
    subprocess.run([sys.executable, "-c", script], cwd=train_gpu.gpu_cases.ROOT, check=True, timeout=100)


def test_a_job_on_a_bare_machine_ends_in_time_and_leaves_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = gpu_machine.Machine(None, tmp_path / "out", minutes=6 / 60)
    job = "trap '{}' TERM; echo on; while true; do sleep 0.1; done"
    assert machine.run("saves", ["bash", "-c", job.format("exit 75")], spare_s=1) == 75
    assert machine.run("deaf", ["bash", "-c", job.format("")]) == -9
    assert (tmp_path / "out" / "saves.log").read_text(encoding="utf-8") == "on\n"
    assert "== saves: 75\non" in capsys.readouterr().out


def test_a_job_finds_what_was_carried(tmp_path: Path) -> None:
    machine = gpu_machine.Machine(None, tmp_path / "out", minutes=1)
    machine.site.mkdir()
    (machine.site / "carried.py").write_text("print('here')", encoding="utf-8")
    assert machine.run("import", [sys.executable, "-c", "import carried, configs.schema"]) == 0
    assert machine.run("import", [sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_training_on_a_bare_machine_needs_data(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_machine.main(["--out", str(tmp_path), "train"])


def test_bytes_by_cause_are_found_again() -> None:
    """Memory made from known costs a parameter, a layer and a sequence, on top of what no difference sees."""

    def run(layers: int, micro: int) -> dict[str, Any]:
        parameters = 1000 + 100 * layers
        after_weights = 5_000 + 6 * parameters
        gradients = after_weights + 4 * parameters
        stays = gradients + 8 * parameters
        passes = stays + micro * (30 * layers + 7)
        stages = {
            "after_weights": after_weights, "step_1_accumulate_after": gradients, "step_1_apply_after": stays,
            "step_3_accumulate_peak": passes, "step_3_apply_after": stays, "step_3_apply_peak": stays + 5 * parameters,
        }  # fmt: skip
        return {"parameters": parameters, "memory_stages_bytes": stages, "peak_allocated_bytes": passes}

    found = train_gpu._bytes_by_cause({(layers, m): run(layers, m) for layers in (2, 4) for m in (1, 2)}, 2, 4)
    assert found["bytes_per_parameter"] == {
        "weights, masters and buffers": 6, "gradients": 4, "moments": 8, "working memory of the update": 5,
        "all that stays": 18,
    }  # fmt: skip
    assert found["activation_bytes_per_sequence_and_layer"] == 30
    assert found["activation_bytes_per_sequence_besides"] == 7


def test_a_failure_never_hides_a_success_and_repetitions_are_kept() -> None:
    first, second = {"tps": 1.0}, {"tps": 2.0}
    assert train_gpu._kept({"error": "x"}, first) == first
    assert train_gpu._kept(first, {"error": "late"}) == {"tps": 1.0, "later_error": "late"}
    again = train_gpu._kept(train_gpu._kept(first, dict(second)), {"tps": 3.0})
    assert again == {"tps": 3.0, "earlier_tps": [1.0, 2.0]}


def test_a_published_share_is_of_the_right_part() -> None:
    peaks = {
        name: next(peak for part, peak in train_gpu.DATASHEET_TFLOPS.items() if part in name)
        for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200")
    }
    assert list(peaks.values()) == [989.0, 756.0, 835.0, 989.0]
