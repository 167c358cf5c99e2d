"""Kept documents -> byte-level BPE tokenizer -> token shards.

`pretrain` reads shards through `shards.py`, the one module that it may import.
"""
