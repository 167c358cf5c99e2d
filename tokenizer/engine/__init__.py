"""Compiled inner loops: pre-tokenization, word counts, BPE training and BPE encoding."""
