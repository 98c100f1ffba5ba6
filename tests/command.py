"""Python commands in processes of their own, without the ten seconds that OpenMMLab's imports take.

A server that has imported everything forks the process of each command. The process has its own
folder, environment and output, as if a shell had started it.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}
_SERVER = multiprocessing.get_context('forkserver')
_SERVER.set_forkserver_preload(['tests.preload'])


class Command:
    """A running ``python WORDS``: a script or ``-m MODULE``, and its arguments."""

    def __init__(self, *words, cwd=ROOT, env=ENV):
        self.words = [str(word) for word in words]
        self._folder = tempfile.TemporaryDirectory()
        self._texts = [Path(self._folder.name, name) for name in ('stdout', 'stderr')]
        args = (self.words, str(Path(cwd).absolute()), dict(env), *map(str, self._texts))
        self.process = _SERVER.Process(target=_become, args=args)
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        """Return the exit status, negative for a signal; None while the command runs."""
        return self.process.exitcode

    def send_signal(self, which):
        os.kill(self.pid, which)

    def kill(self):
        """Kill the command and the processes that it started."""
        for kill in (os.killpg, os.kill):  # it has no group before it has come to that line
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def wait(self, timeout=300):
        """Return a CompletedProcess, with the output as text."""
        self.process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.words, timeout, *self._read())
        return subprocess.CompletedProcess(self.words, self.poll(), *self._read())

    def _read(self):
        return [path.read_text() if path.exists() else '' for path in self._texts]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.poll() is None:
            self.kill()
        self.process.join()
        self._folder.cleanup()


def run_python(*words, timeout=300, **place):
    """Run a command to its end, as :func:`subprocess.run` with the output as text."""
    with Command(*words, **place) as command:
        return command.wait(timeout)


def run_together(number, *words, env=ENV, timeout=300, **place):
    """Run one command in several processes that torch.distributed connects, as torchrun does.

    Returns the first one's result, or that of one that fails.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = env | {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    env |= {'WORLD_SIZE': str(number), 'LOCAL_WORLD_SIZE': str(number)}
    ranks = [
        Command(*words, env=env | {'RANK': str(i), 'LOCAL_RANK': str(i)}, **place)
        for i in range(number)
    ]
    end = time.monotonic() + timeout
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < end:
        if any(rank.poll() for rank in ranks):
            break  # the others wait for it
        time.sleep(0.05)
    failed = next((rank for rank in ranks if rank.poll()), ranks[0])
    result = failed.wait(0.1)
    for rank in ranks:
        rank.__exit__()
    return result


def _become(words, folder, env, out, error):
    os.setsid()
    # a shell's background job ignores Ctrl-C, and so would this one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(None, force=True)  # the default, as in any other process
    for number, path in ((1, out), (2, error)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    more = [path for path in env.get('PYTHONPATH', '').split(os.pathsep) if path]
    try:
        if words[0] == '-m':
            sys.argv = words[1:]
            sys.path[:0] = [folder, *more]
            runpy.run_module(words[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = words
            sys.path[:0] = [str(Path(words[0]).parent), *more]
            runpy.run_path(words[0], run_name='__main__')
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them
