"""Text classifiers: labelled text in, calibrated fastText models and their evaluation out."""
