"""Describes for people what a run ran on, how long, and in how much memory: names and values."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax

Device = Any  # a jax.Device, which type checkers take for a variable
PACKAGES = ("flaxunet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def hardware(devices: Sequence[Device]) -> dict[str, str]:
    """Describes the devices, processor, memory and operating system of this machine."""
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Lists the versions of Python and of those packages that are installed and that results depend on."""
    numbers = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    return numbers


def peak_memory(devices: Sequence[Device]) -> dict[str, str]:
    """The largest memory in use so far: of a device, where the backend counts it, and of this process."""
    stats = [device.memory_stats() or {} for device in devices if device.process_index == jax.process_index()]
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    memory = {"peak memory of a device": size(max(peaks))} if peaks else {}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    return {**memory, "peak memory of the process": peak}


def ran(devices: Iterable[Device], seconds: float) -> dict[str, str]:
    """Describes a run that has taken so many seconds: time, peak memory, hardware and versions."""
    used = list(devices)
    return {"time": duration(seconds), **peak_memory(used), **hardware(used), **versions()}


def size(count: float) -> str:
    """Formats a number of bytes with three digits and a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def duration(seconds: float) -> str:
    """Formats seconds as 1 h 02 min, 3 min 05 s or 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
