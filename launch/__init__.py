"""The command line and everything that starts processes. No other package imports `launch`."""
