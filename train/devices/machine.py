"""What a run ran on, how long and in how much memory: names and values, for people."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax

Device = Any
"""A jax.Device, which is a variable to type checkers."""
PACKAGES = ("flaxunet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def hardware(devices: Sequence[Device]) -> dict[str, str]:
    """Devices, processor, memory and system of this machine."""
    try:
        memory = size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        memory = "unknown"
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": memory,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on; what is not installed is left out."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory(devices: Sequence[Device]) -> dict[str, str]:
    """The most memory in use so far: of each device where it counts, and of this process."""
    found = {}
    stats = [device.memory_stats() or {} for device in devices if device.process_index == jax.process_index()]
    peaks = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    if peaks:
        found["peak memory of a device"] = size(max(peaks))
    try:
        import resource
    except ImportError:  # Windows
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    found["peak memory of the process"] = size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    return found


def ran(devices: Iterable[Device], seconds: float) -> dict[str, str]:
    """Time, peak memory, hardware and versions of a run that took so many seconds."""
    used = list(devices)
    return {"time": duration(seconds), **peak_memory(used), **hardware(used), **versions()}


def size(count: float) -> str:
    """Bytes as a number with three digits and a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def duration(seconds: float) -> str:
    """Seconds as 1 h 02 min, 3 min 05 s or 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
