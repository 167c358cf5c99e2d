"""Measures any tokenizer: compression, morpheme boundaries, vocabulary."""
