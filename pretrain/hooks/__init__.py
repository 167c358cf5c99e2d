"""What surrounds a training step: metrics, skip-step, incidents, watchdog, summary."""
