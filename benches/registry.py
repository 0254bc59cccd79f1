"""Every workload there is, in the order in which they are measured and shown. Adding a file of workloads is one line."""

from __future__ import annotations

import clients
import disk
import echo
import memory
import sendfile
import startup
import subprocesses
import tasks
import tls
import web
from suite import Workload

FILES = (tasks, echo, tls, web, clients, subprocesses, disk, sendfile, memory, startup)
WORKLOADS: list[Workload] = [workload for file in FILES for workload in file.WORKLOADS]
