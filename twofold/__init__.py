"""What every package stands on: artifacts, files, errors, tasks. Imports nothing of ours and nothing heavy."""

VERSION = "0.1.0"
