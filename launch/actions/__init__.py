"""What the commands do. A command's words are declared in launch/actions/, which imports these when it runs.

Contract: each takes a recipe (or a run's folder), prints to the console it is given, and raises `UserError`
for what the user can fix.
"""
