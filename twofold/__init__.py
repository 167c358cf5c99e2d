"""The layer below all packages: stages, artifacts, files, errors, tasks. It imports none of them and nothing heavy."""

VERSION = "0.1.0"
