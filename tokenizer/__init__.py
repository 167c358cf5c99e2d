"""Kept documents -> byte-level BPE tokenizer -> token shards.

In the order of the data's way:

    patterns.py    how text is cut into words, and bytes written as printable code points
    compiled.py    the owner of numba
    automaton.py   a pattern -> a finite automaton; cutter.py drives it over bytes
    tally.py       words and counts over the bytes of texts, compiled; word_files.py writes and reads them
    counts.py      words of the kept training documents, counted by tasks and merged: sample, mixture, budget
    morphemes.py   borders of Korean morphemes, in training only (owner of mecab)
    merges.py      exact greedy byte-pair merges over counted words, compiled
    learn.py       files of words -> pieces, and superwords after them
    sentencepiece_model.py  pieces -> a sentencepiece model (owner of that import)
    train.py       stage `tokenizer`: all of this in order
    convert.py     merges -> tokenizer.json, the artefact of record; bytes of each id
    encode.py      text -> ids and back, through tokenizer.json
    shards.py      the format of token shards: the one module that pretrain imports
    pack.py        stage `shards`: kept documents -> token shards with document index

Measuring, ours and others:

    candidates.py       any tokenizer.json, ours or a public one
    compression.py      tokens of held-out text by language and domain; by vocabulary size, syllable, Unicode form
    morpheme_scores.py  cuts of Korean words against the borders of their morphemes
    vocabulary.py       kinds of tokens, and which of them the training shards hardly ever hold

Nothing of sentencepiece, MeCab or the counts is needed once tokenizer.json is written.
"""
