"""The command line and everything that starts something: nobody imports `launch`.

cli.py        `twofold …`: arguments, exit codes, errors in one line
run.py        the chain: each stage's artifact, made or reused, in order
stages.py     the stages, their inputs and what decides their identity
executors/  datatrove's executors behind `configs.tasks.TaskRunner` (owner of that import)
training.py   starts `deepspeed --module pretrain.train` and follows its metrics
preflight.py  what must be right before anything long begins
report.py     one self-contained HTML file from the manifests and metrics
plots.py      its figures (owner of matplotlib)
"""
