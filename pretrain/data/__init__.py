"""Token shards -> batches: the plan of steps, the data order, and what validation reads."""
