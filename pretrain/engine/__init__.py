"""DeepSpeed ZeRO-3: configuration, its checks, and the engine that hides it."""
