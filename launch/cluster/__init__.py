"""Many hosts: which they are, whether they fit, and what starts the ranks on them.

hostfile.py       DeepSpeed's list of hosts
command_lines.py  the command line and environment that start the ranks
hosts.py          one command on every host, by ssh or srun
probe.py          what one host says of itself (runs there)
checks.py         what is wrong with the hosts, from what they say
slurm_job.py      the job that `twofold launch --slurm` submits
"""
