"""What a training costs before it runs: memory, time, failures, and the options that suit it.

Contract: everything here is pure, without torch, and in bytes, seconds and operations; only `calibration`
starts processes. `hardware` says what a device can do and what is assumed of it, `memory` and `step_time` are
the two models, `goodput` adds failures and checkpoints, `sweep` compares options and recommends one, `page`
draws it.
"""
