"""A text -> numbers: pure functions of one document, no files, no thresholds."""
