"""The stages of training that are not the training run itself."""
