"""The tokenizer's engine: compiled loops behind four functions.

    pretokenize   text -> the bounds of its words, by one of the patterns in tokenizer/patterns.py
    count_words   words -> a table of distinct words and their counts
    train_bpe     counted words -> the pieces of a byte-level BPE vocabulary, in rank order
    encode        text -> ids

Contract: text is UTF-8 in numpy arrays, one document after the other, so nothing is copied into Python strings. All
results are exact and depend on the text alone. Modules outside this package import these names and none of its modules.

The plain way does the same with libraries: `tokenizers.trainers.BpeTrainer` or `rustbpe` train, and `tokenizers` or
`tiktoken` encode. docs/tokenizer-engine.md says when to prefer it.
"""

from tokenizer.engine.bpe_encoder import Vocabulary, encode
from tokenizer.engine.bpe_trainer import MOST_PLACES, train_bpe
from tokenizer.engine.pretokenizer import Bytes, Integers, pretokenize
from tokenizer.engine.word_counts import WORD_BYTES, Words, WordTable, count_words

__all__ = [
    "MOST_PLACES",
    "WORD_BYTES",
    "Bytes",
    "Integers",
    "Vocabulary",
    "WordTable",
    "Words",
    "count_words",
    "encode",
    "pretokenize",
    "train_bpe",
]
