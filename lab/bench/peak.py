"""`python -I -S peak.py FILE COMMAND ...`: run a command; its seconds and largest resident memory (MB) go into FILE.

A process inherits that largest memory of the one that started it: they are one until it becomes another program. So
what the benchmark measures is started by this one, which is small.
"""

import os
import sys
import time


def main(file: str, command: list[str]) -> int:
    started = time.perf_counter()
    try:
        child = os.posix_spawn(command[0], command, os.environ)
    except OSError as error:
        print(f"error: expected the path of a program, found {command[0]}: {error.strerror}", file=sys.stderr)
        return 2
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    megabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    with open(file, "w", encoding="ascii") as stream:  # noqa: PTH123 - pathlib would make this process larger
        stream.write(f"{seconds} {megabytes}")
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code  # as a shell tells of a signal


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(f"error: expected FILE COMMAND ..., found {len(sys.argv) - 1} arguments", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
