"""transformers' Trainer on DeepSpeed ZeRO-3, one rank of it: what `train_cpu` is measured beside.

    deepspeed --module benchmarks.peer_trainer SETTINGS.json OUT.json

Writes the median of tokens a second over the steps after the first third, as rank 0 sees them.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import torch


def main() -> None:
    settings_file, out = (Path(argument) for argument in sys.argv[1:] if not argument.startswith("--local_rank"))
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    import deepspeed.ops
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    # DeepSpeed would compile a shared-memory collective with the user's C++ compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    length, vocab = settings["sequence_length"], settings["model"]["vocab_size"]

    class RandomTokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            generator = torch.Generator().manual_seed(index)
            tokens = torch.randint(5, vocab, (length,), generator=generator)
            return {"input_ids": tokens, "labels": tokens}

    class Clock(TrainerCallback):  # type: ignore[misc]
        seconds: ClassVar[list[float]] = []
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(out.with_suffix(".out")), max_steps=settings["steps"], bf16=True, use_cpu=True,
        per_device_train_batch_size=settings["micro_batch"], gradient_accumulation_steps=settings["accumulation"],
        learning_rate=settings["learning_rate"], weight_decay=settings["weight_decay"], adam_beta2=0.95,
        max_grad_norm=settings["clip"], lr_scheduler_type="constant", deepspeed=settings["deepspeed"],
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**settings["model"]))
    trainer = Trainer(model=model, args=arguments, train_dataset=RandomTokens(), callbacks=[clock])
    trainer.train()
    if trainer.is_world_process_zero():
        steady = clock.seconds[len(clock.seconds) // 3 :]
        tokens = settings["deepspeed"]["train_batch_size"] * length
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {"tps": tokens / statistics.median(steady), "memory_mb": memory}
        out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
