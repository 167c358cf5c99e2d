"""Training state and weights on disk, in our format and in Llama's."""
