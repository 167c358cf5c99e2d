"""Speed and quality, measured side by side with the peer: `python -m benchmarks.NAME`."""
