"""Runs one command and reports what the kernel says of it. Started as `python -S -E launch.py REPORT COMMAND …`.

A process of its own, and a small one: a child's peak memory begins at that of the process it was forked from, so
the benchmark itself, which has many modules, must not be the one that forks. Imports nothing of the project.
"""

import os
import sys
import time

report, command = sys.argv[1], sys.argv[2:]
began = time.perf_counter()
child = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - began
with open(report, "w") as file:
    code = os.waitstatus_to_exitcode(status)
    file.write(f"{code} {seconds!r} {usage.ru_utime + usage.ru_stime!r} {usage.ru_maxrss}")
