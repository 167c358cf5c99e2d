"""The two stages of the tokenizer: train it, then tokenize the kept documents into shards."""
