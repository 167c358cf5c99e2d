"""What a training run costs before it starts: memory, time, failures, and the settings that suit it.

Contract: everything here is pure, without torch, in bytes, seconds and operations.

    hardware   datasheets of devices, and constants (assumed or measured)
    memory     bytes on each device
    times      seconds of a step
    goodput    checkpoints, failures and restarts
    estimate   compares all settings of a recipe on N devices and recommends one
    measured   constants from a hardware profile
"""
