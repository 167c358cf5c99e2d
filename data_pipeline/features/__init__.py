"""Text -> numbers: pure functions of one document, without files or thresholds."""
