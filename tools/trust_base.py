"""What the parts of trust.py share: a warmed parent, builds as children of it, and folders that are compared.

Importing PyTorch, transformers and TensorFlow takes ten seconds, a small build one. So the parent imports them once,
makes the tokenizer and some models without weights, computes nothing, and every build is a fork of it that runs the
console script's `main`. What a child changes in itself (shorter waits, a death at the k-th call) are patches: functions
of trust_patches.py that it calls before it begins.
"""
import contextlib
import ctypes
import dataclasses
import gc
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from trust_patches import shorten, stock

FORK = multiprocessing.get_context('fork')
PROG = 'build_anchor_hidden_cache'
CHOICES = dict(num_samples=20, shard_size=3, batch_size=3, device='cpu')  # 7 shards, the last of two records
LOG = 'build.log'  # the one file of a cache that two builds need not have alike
NOBODY = 65534


class Broken(Exception):
    "What went wrong in a case."


@dataclasses.dataclass(frozen=True)
class Case:
    "One trial: `run` takes a `Place` and gives what it saw: 'equal', 'found' and whatever else is worth counting."
    kind: str
    run: Callable[['Place'], set[str]]


class Child:
    "A build in a process of its own."
    def __init__(self, words, log, patches=(), environ=(), uid=None):
        self.log, self.status, self.start = Path(log), None, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0: self._be(words, patches, dict(environ), uid)

    def _be(self, words, patches, environ, uid):
        status = 99
        try:
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            for number in (1, 2): os.dup2(out, number)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(environ)
            if uid:
                os.setgid(uid)
                os.setuid(uid)
                ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: its own /proc/self/fd stays open to it
            for patch in patches: patch()
            from anchor_cache.build import main
            status = main(words)
            sys.stdout.flush()
        except BaseException: traceback.print_exc()
        finally: os._exit(status)

    def ended(self):
        "Whether it has ended; its exit status is in `status` then, or minus the signal that killed it."
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid: self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, seconds=240.):
        "The exit status; raises `Broken` where there is none after a while."
        end = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > end:
                self.kill()
                raise Broken(f'still running after {seconds:.0f} s: {self.tail()}')
            time.sleep(.003)
        return self.status

    def send(self, number):
        "Send a signal; whether it was still running."
        if self.ended(): return False
        os.kill(self.pid, number)
        return True

    def catches(self, number=signal.SIGTERM):
        "Whether it has come so far that it sees to its signals."
        with contextlib.suppress(OSError):
            text = Path(f'/proc/{self.pid}/status').read_text()
            return bool(int(re.search(r'SigCgt:\s*(\w+)', text)[1], 16) >> number - 1 & 1)
        return False

    def kill(self):
        "End it with SIGKILL; whether it was still running."
        if not self.send(signal.SIGKILL): return False
        while not self.ended(): time.sleep(.001)
        return self.status == -signal.SIGKILL

    def text(self): return self.log.read_text(errors='replace') if self.log.exists() else ''

    def tail(self):
        "The end of what it printed, in one line."
        return ' | '.join(self.text().replace('\r', '\n').split('\n')[-6:])[-600:]

    def line(self, kinds='error:|interrupted|stopped by'):
        "The one line that says why it ended; raises `Broken` for none, for two, and for a traceback."
        text = self.text()
        lines = re.findall(rf'{PROG}: ((?:{kinds}).*)', text)
        if len(lines) != 1 or 'Traceback' in text or 'Exception ignored' in text:
            raise Broken(f'status {self.status} with {len(lines)} lines: {self.tail()}')
        return lines[0]


class Lab:
    "A teacher, the demo's frames, and what a build of them makes when nobody disturbs it."
    def __init__(self, base, seed):
        from anchor_cache import build
        from anchor_cache.teachers.random_models import write_random_run
        self.base, self.seed = Path(base), seed
        self.base.chmod(0o755)
        home = self.base/'home'
        home.mkdir()
        home.chmod(0o777)
        os.environ['ANCHOR_CACHE_HOME'] = str(home)
        self.checkpoint = write_random_run(self.base/'run', 'siglip-224px+7b')
        self.made = {}  # seed of a build → its files
        stock()
        self.planned = self.plan(self.base/'never')
        build.require_build()
        gc.freeze()  # children share what is there
        if (threads := len(os.listdir('/proc/self/task'))) > 2: print(f'{threads} threads before a fork')

    def plan(self, folder, **choices):
        "The plan of a build, in this process."
        from anchor_cache.command_line import parse_build
        from anchor_cache.planning import plan_build
        return plan_build(parse_build(self.words(folder, **dict(seed=1) | choices)))

    def words(self, folder, **choices):
        "The command line of a build."
        from anchor_cache.config import demo_data
        chosen = dict(teacher_checkpoint=self.checkpoint, tokenizer_path=demo_data('tokenizer'),
                      data_root_dir=demo_data('rlds'), output_dir=folder, **CHOICES | choices)
        flags = [[f'--{k}'] if v is True else [f'--{k}', str(v)] for k, v in chosen.items() if v is not False]
        return list(itertools.chain.from_iterable(flags))

    def reference(self, seed):
        "Make the reference of a seed: name → bytes, for all files but the log."
        folder = self.base/f'reference-{seed}'
        child = Child(self.words(folder, seed=seed), self.base/f'reference-{seed}.log')
        if child.wait(): raise SystemExit(f'the undisturbed build fails: {child.text()}')
        self.made[seed] = files(folder)


def files(folder):
    "Name → bytes of all files in a folder but the log; a folder inside has None."
    return {p.name: p.read_bytes() if p.is_file() else None for p in Path(folder).iterdir() if p.name != LOG}


def differences(folder, expected):
    "In what a folder differs from the files that it should have, in words; nothing if it is equal."
    found = files(folder) if os.path.isdir(folder) else {}
    told = [f'{name} is missing' for name in expected if name not in found]
    told += [f'{name} is too much' for name in found if name not in expected]
    return told + [f'{name} differs' for name in expected if name in found and found[name] != expected[name]]


class Place:
    "Where one case runs: a folder of its own, its random numbers, and the lab."
    def __init__(self, lab, case, number):
        self.lab, self.base = lab, Path(tempfile.mkdtemp(dir=lab.base, prefix='case-'))
        self.base.chmod(0o777)
        self.folder, self.logs = self.base/'cache', itertools.count()
        self.rng = random.Random(f'{lab.seed} {case.kind} {number}')
        self.children: list[Child] = []

    def build(self, *patches, environ=(), uid=None, folder=None, **choices):
        "Start a build of the folder; seed 1 unless another is named."
        words = self.lab.words(folder or self.folder, **dict(seed=1) | choices)
        self.children.append(Child(words, self.base/f'log-{next(self.logs)}', patches, environ, uid))
        return self.children[-1]

    def until_begun(self, child, names=('',)):
        "Wait until the folder is there, or one of some names in it, or the child has ended."
        while not child.ended() and not any((self.folder/name).exists() for name in names): time.sleep(.001)

    def shards(self):
        "How many sidecars the folder has."
        return len(list(self.folder.glob('hidden_anchor_shard_*.json')))

    def check_resumed(self, *patches, seed=1, **choices):
        "Resume the build; raises `Broken` unless it ends well with the bytes of an undisturbed one."
        child = self.build(shorten(), *patches, seed=seed, **choices)
        if child.wait(): raise Broken(f'resumed with status {child.status}: {child.tail()}')
        if told := differences(self.folder, self.lab.made[seed]): raise Broken(f'after resume: {"; ".join(told[:4])}')
        return child

    def close(self):
        for child in self.children: child.kill()
        shutil.rmtree(self.base, ignore_errors=True)


def work(conn, lab, cases):
    "A worker: run its cases one after the other and send what each saw."
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, case in cases:
        place, start = Place(lab, case, number), time.monotonic()
        try: seen, why = case.run(place) or set(), ''
        except Broken as e: seen, why = {'failure'}, str(e)
        except Exception: seen, why = {'failure'}, traceback.format_exc()
        finally: place.close()
        conn.send((number, case.kind, seen, why, time.monotonic() - start))
    conn.close()


def spread(lab, cases, workers, told):
    "Run cases in worker processes, each of which forks its builds; `told` gets each outcome as it comes."
    numbered, conns = list(enumerate(cases)), []
    for k in range(min(workers, len(numbered))):
        mine, theirs = FORK.Pipe(False)
        FORK.Process(target=work, args=(theirs, lab, numbered[k::workers]), daemon=True).start()
        theirs.close()
        conns.append(mine)
    while conns:
        for conn in wait(conns):
            try: told(*conn.recv())
            except EOFError: conns.remove(conn)


def own_mounts():
    "Give this process a view of the file systems of its own; whether that is allowed."
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000): return False  # CLONE_NEWNS
    return subprocess.run(['mount', '--make-rprivate', '/'], capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Any:
    "Inside: a tmpfs with these options at a folder; gives None where that is not allowed."
    folder.mkdir()
    made = own_mounts() and not subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)],
                                               capture_output=True).returncode
    try: yield folder if made else None
    finally:
        if made: subprocess.run(['umount', '-l', str(folder)], check=False)
