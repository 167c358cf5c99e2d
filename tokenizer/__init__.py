"""Kept documents -> byte-level BPE tokenizer -> token shards.

In the order of the data's way:

    patterns.py    how text is cut into words, and bytes written as printable code points
    counts.py      words of the kept training documents, counted by tasks and merged
    train.py       stage `tokenizer`: merges by sentencepiece from word counts (owner of that import)
    convert.py     merges -> tokenizer.json, the artefact of record; bytes of each id
    encode.py      text -> ids and back, through tokenizer.json
    shards.py      the format of token shards: the one module that pretrain imports
    pack.py        stage `shards`: kept documents -> token shards with document index

Nothing of sentencepiece or of the counts is needed once tokenizer.json is written.
"""
