"""The command line and everything that starts something. Nothing imports `launch`."""
