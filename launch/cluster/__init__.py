"""Training on many hosts: listing them, checking them, and starting ranks on them.

hostfile.py       DeepSpeed's list of hosts
command_lines.py  command line and environment that start the ranks
hosts.py          one command on every host, by ssh or srun
probe.py          facts about one host (runs there)
checks.py         problems of the hosts, from these facts
slurm_job.py      the job that `twofold launch --slurm` submits
"""
