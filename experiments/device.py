"""Clocks and memory of the device that an experiment runs on."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option ``--device``."""
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: seconds are then those of the clock")


def clock(device: str) -> float:
    """Seconds of this process's processor time; on another device seconds of the clock, once its queue is empty."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Callable[[], object], device: str) -> float:
    """What a piece of work takes by that clock."""
    start = clock(device)
    work()
    return clock(device) - start


def described(device: str) -> str:
    """What is timed, for titles."""
    return "One CPU thread" if device == "cpu" else torch.cuda.get_device_name(device)


def peak_bytes(device: str) -> float:
    """The most memory that this process has had so far: of the machine, or of the other device."""
    if device == "cpu":
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(torch.cuda.max_memory_allocated(device))
