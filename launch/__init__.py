"""The command line and everything that starts something: nobody imports `launch`.

cli.py        `twofold …`: arguments, exit codes, errors in one line
run.py        the chain: each stage's artifact, made or reused, in order
stages.py     the stages, their inputs and what decides their identity
preflight.py  what must be right before anything long begins
training.py   starts `deepspeed --module pretrain.train`, follows it, starts it again
commands/     a module a command
pages/        everything that is HTML (owners of jinja2 and matplotlib)
executors/    datatrove's executors behind `configs.tasks.TaskRunner` (owner of that import)
cluster/      many hosts: which they are, whether they fit, what starts the ranks
planner/      what a recipe costs on N GPUs, computed
"""
