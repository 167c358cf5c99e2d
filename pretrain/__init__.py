"""Token shards -> phases -> exported model.

    sizes.py               parameters and FLOPs by formula
    plan.py                step -> phase, tokens, learning rate; the budget against the supply
    order.py               sample index -> source, epoch, sequence: computed, never stored
    data.py                token shards -> batches, by random access
    inputs.py              opens all that is read and refuses what does not fit together
    model.py               the decoder, in one file, shapes in the names
    attention.py           causal attention, within documents too
    head.py                logits and losses, all at once or in chunks
    float8.py              linear layers in float8
    kernels.py             which way each part runs on a device
    ds_config.py           recipe -> DeepSpeed's configuration
    engine.py              the model under ZeRO-3 (the only module that imports deepspeed)
    ranks.py               sums and agreement between ranks
    evaluate.py            bits per byte on held-out windows, by source
    checkpoint.py          committed, verified, retained
    monitor.py             metrics.jsonl, and W&B (the only module that imports wandb)
    summary.py             the finished run in a few numbers
    train.py               the loop: stage `train`, one process a rank
    llama.py               Llama-format checkpoints, out and in
    safetensors_stream.py  safetensors written tensor by tensor
    generate.py            seeded sampling with our own decoder
    export.py              stage `export`: Llama-format model, samples
    stage.py               what the rest of the house knows of training

Reading order for the loop: plan, order, data, engine, train. sizes, plan, order, ds_config, stage and
export can be imported without torch.
"""
