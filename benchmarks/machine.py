"""What processes and the machine spend, from /proc (Linux)."""

import os
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process and of its children that have ended; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) * _TICK_S


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def family_cpu_s(pid: int) -> float:
    return sum(cpu_s(member) for member in family(pid))


def busy_s() -> float:
    """Seconds of CPU of the whole machine, since boot (what a hypervisor stole counts as busy)."""
    with Path("/proc/stat").open() as file:
        numbers = [int(n) for n in file.readline().split()[1:]]
    user, nice, system, _idle, _wait, irq, soft, steal = numbers[:8]
    return (user + nice + system + irq + soft + steal) * _TICK_S


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def described() -> str:
    """One line on the machine."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {os.uname().sysname} {os.uname().release}"
