"""The decoder and everything that computes inside it: attention, loss, float8, backends."""
