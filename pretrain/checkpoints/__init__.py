"""Training state, Llama-format checkpoints, and merging."""
