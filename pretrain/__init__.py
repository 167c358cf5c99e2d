"""Token shards -> phases -> exported model.

Read `data/plan.py` and `data/order.py` first, then `trainer.py`; `train.py` is the entry point of a rank.
"""
