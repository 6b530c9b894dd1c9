"""Generated code in a child process that can do nothing but compute.

What holds it: seccomp (no sockets, no processes or threads, no signals to others, no
change of others' limits or priority, no way to outlive the worker), a network
namespace of its own where the kernel allows one, Landlock (it reads the Python installation
and writes only in a folder that is removed), rlimits (memory, processor time, file size),
no capabilities, and the wall clock of the worker that waits for it. Where the kernel has no
seccomp or Landlock the code is not run. Only the standard library can be imported.

The child says that it passed by a secret that it is given; code that searches the
interpreter's frames for it could cheat its tests, but not leave the sandbox.
"""

import contextlib
import ctypes
import os
import platform
import resource
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

_MEMORY_BYTES = 1 << 30
_CPU_S = 60
_FILE_BYTES = 1 << 20
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_PDEATHSIG = 38, 22, 1
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
# Landlock file-system rights of its first version: bit 2 reads files, 3 reads folders, 0 executes.
_LANDLOCK_ALL = (1 << 13) - 1
_LANDLOCK_READ_FOLDER = 1 << 3
_LANDLOCK_READ = 1 << 0 | 1 << 2 | _LANDLOCK_READ_FOLDER
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522
# Per machine: its audit identifier and the numbers of the calls that are refused, line by line:
# socket, connect, socketpair, clone, clone3, fork, vfork, execve, execveat;
# kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_open, pidfd_send_signal;
# ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, process_madvise, process_mrelease,
# migrate_pages, move_pages, io_uring_setup, unshare, setns, and prctl, which could take the
# parent's death signal back;
# setpriority, sched_setaffinity, sched_setparam, sched_setscheduler, sched_setattr, ioprio_set.
_SYSTEM_CALLS = {
    "x86_64": (
        0xC000003E,
        *(41, 42, 53, 56, 435, 57, 58, 59, 322),
        *(62, 200, 234, 129, 297, 434, 424),
        *(101, 310, 311, 438, 440, 448, 256, 279, 425, 272, 308, 157),
        *(141, 203, 142, 144, 314, 251),
    ),
    "aarch64": (
        0xC00000B7,
        *(198, 203, 199, 220, 435, 221, 281),
        *(129, 130, 131, 138, 240, 434, 424),
        *(117, 270, 271, 438, 440, 448, 238, 239, 425, 97, 268, 167),
        *(140, 122, 118, 119, 274, 30),
    ),
}
# prlimit64 may name only the caller itself (process 0): the C library asks for limits with it.
_SYS_PRLIMIT = {"x86_64": 302, "aarch64": 261}
# fcntl may not choose who gets a pipe's signal, or which: F_SETOWN, F_SETSIG, F_SETOWN_EX.
_SYS_FCNTL = {"x86_64": 72, "aarch64": 25}
_FCNTL_SIGNALS = (8, 10, 15)
_FIRST_ARGUMENT, _SECOND_ARGUMENT = 16, 24  # their low halves in the filter's input
_READABLE = ("/usr", "/lib", "/lib64", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom")


class SandboxError(RuntimeError):
    """The kernel does not give what is needed to run foreign code."""


def run_tests(code: str, tests: str) -> bool:
    """Run code, then its tests, in one namespace.

    The time limit is that of the worker process that calls this: it is killed with the
    child, which asks for the parent's death signal.

    Returns:
        Whether both ran through.

    Raises:
        SandboxError: the child could not be fenced in.
    """
    folder = tempfile.mkdtemp(prefix="advdistill-code-")
    secret = secrets.token_hex(16)
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), folder, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": "", "HOME": folder, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        try:
            parts = [secret.encode(), code.encode(errors="replace"), tests.encode(errors="replace")]
            request = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
            output, _ = child.communicate(request)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        if child.returncode == _NO_FENCE:
            raise SandboxError("the kernel offers no sandbox here (Landlock and a network fence)")
        return output.endswith(secret.encode())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_NO_FENCE = 77


def _main() -> None:
    """The child: reads what to run, fences itself in, runs it."""
    folder, parent = sys.argv[1], int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    secret, code, tests = (_read_part() for _ in range(3))
    report = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        _fence(libc, folder)
    except OSError:
        os._exit(_NO_FENCE)
    space = {"__name__": "__main__"}
    try:
        exec(compile(code, "answer", "exec"), space)
        exec(compile(tests, "tests", "exec"), space)
    except BaseException:  # noqa: BLE001 - sys.exit in an answer is a failure as well
        os._exit(1)
    os.write(report, secret)
    os._exit(0)


def _read_part() -> bytes:
    stream = sys.stdin.buffer
    (size,) = struct.unpack(">Q", stream.read(8))
    return stream.read(size)


def _fence(libc: ctypes.CDLL, folder: str) -> None:
    """Give up, for good, everything but computing.

    Raises:
        OSError: a fence could not be set.
    """
    for limit, value in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # Not every kernel lets everybody have a namespace; the filter below is what must hold.
    libc.unshare(_CLONE_NEWNET if os.getuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _landlock(libc, folder)
    _drop_capabilities(libc)
    _refuse_system_calls(libc)


def _landlock(libc: ctypes.CDLL, folder: str) -> None:
    """Read the Python installation, write only below `folder`."""
    ruleset = ctypes.create_string_buffer(struct.pack("Q", _LANDLOCK_ALL))
    descriptor = _checked(libc.syscall(_SYS_LANDLOCK_CREATE, ruleset, ctypes.c_size_t(8), 0))
    readable = {sys.base_prefix, sys.base_exec_prefix, *_READABLE}
    for path, rights in ((folder, _LANDLOCK_ALL), *((path, _LANDLOCK_READ) for path in sorted(readable))):
        if not os.path.exists(path):
            continue
        if not os.path.isdir(path):
            rights &= ~_LANDLOCK_READ_FOLDER
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
        _checked(libc.syscall(_SYS_LANDLOCK_ADD, descriptor, 1, rule, 0))
        os.close(opened)
    _checked(libc.syscall(_SYS_LANDLOCK_RESTRICT, descriptor, 0))
    os.close(descriptor)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    nothing = ctypes.create_string_buffer(bytes(24))
    _checked(libc.syscall(_SYS_CAPSET.get(platform.machine(), -1), header, nothing))


def _refuse_system_calls(libc: ctypes.CDLL) -> None:
    """A seccomp filter: what reaches beyond the process fails with EPERM."""
    if platform.machine() not in _SYSTEM_CALLS:
        raise OSError("no filter for this machine")
    machine, *numbers = _SYSTEM_CALLS[platform.machine()]
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, refuse, end = 0x7FFF0000, 0x00050001, 0x80000000
    program = [(load, 0, 0, 4), (jump_equal, 1, 0, machine), (give, 0, 0, end), (load, 0, 0, 0)]
    if platform.machine() == "x86_64":  # the x32 calls have numbers of their own
        program += [(0x35, 0, 1, 0x40000000), (give, 0, 0, end)]
    for number in numbers:
        program += [(jump_equal, 0, 1, number), (give, 0, 0, refuse)]
    program += [
        (jump_equal, 0, 4, _SYS_PRLIMIT[platform.machine()]),
        (load, 0, 0, _FIRST_ARGUMENT),
        (jump_equal, 0, 1, 0),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
        (jump_equal, 0, 1 + 2 * len(_FCNTL_SIGNALS), _SYS_FCNTL[platform.machine()]),
        (load, 0, 0, _SECOND_ARGUMENT),
    ]
    for command in _FCNTL_SIGNALS:
        program += [(jump_equal, 0, 1, command), (give, 0, 0, refuse)]
    program.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    _checked(libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "a fence of the sandbox could not be set")
    return result


if __name__ == "__main__":
    _main()
