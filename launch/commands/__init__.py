"""What `twofold COMMAND` does, a module a command; cli.py reads their arguments.

Contract: each takes a recipe (or a run's folder), prints to the console that it is given, and raises
`UserError` for what the user can fix. `run`, `verify` and `clean` are in run.py, next to the chain.
"""
