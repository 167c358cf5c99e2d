"""Token shards -> phases -> exported model.

Read `trainer.py` first, then `data/plan.py` and `data/order.py`; `train.py` is the program of each rank,
entered by `start.py`.
    data/         the plan of steps, the data order, batches, validation windows
    model/        the decoder, and faster versions of its parts
    engine/       the model under ZeRO-3; deepspeed_adapter.py is the only module that imports deepspeed
    checkpoints/  training state, Llama-format checkpoints, merging
    hooks/        what surrounds a training step; hook.py is the interface
    profiling/    measurements before an allocation is spent
    stages/       the stages of a recipe that are not the training itself
"""
