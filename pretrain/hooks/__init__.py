"""What surrounds a training step; hook.py is the interface."""
