"""Measurements of a device and a dry run of one step, before an allocation is spent."""
