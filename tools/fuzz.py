"""Damage every kind of file that a build opens, ten thousand times each, and count what becomes of it.

    python tools/fuzz.py                                  everything; the table, and exit status 1 for any failure
    python tools/fuzz.py --kinds config plan --cases 200  some kinds, fewer cases
    python tools/fuzz.py --kinds config --case 123        one case alone, in this process, with its traceback

A case follows from seed, kind and number alone. Its outcome is refused (`UserError`), equal (what was read is what the
undamaged file holds), noticed (it differs, and so does what the manifest or the sidecar says of it), or a failure:
SILENT (it differs and nothing says so), traceback (any other exception), hang, memory or crash. fuzz_kinds.py has the
kinds, fuzz_mutations.py the damage. Cases run in worker processes; one that hangs, grows or dies is replaced.
"""
import argparse
import collections
import contextlib
import dataclasses
import faulthandler
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import wait
from pathlib import Path

FINE, FAILED = ('refused', 'equal', 'noticed'), ('SILENT', 'traceback', 'hang', 'memory', 'crash')
CHUNK, OPENING, SHOWN = 100, 120, 3  # cases sent at once; seconds to open a kind; failures shown of each cause
FORK = multiprocessing.get_context('fork')  # workers begin with everything imported


@dataclasses.dataclass
class Options:
    kinds: dict
    cases: int = 10_000
    seed: int = 7
    workers: int = 2
    seconds: float = 10  # after which a case hangs
    memory: float = 2  # GB that a case may take
    save: Path | None = None


def where(frames):
    "The innermost frame in the package, of (file, line, function), the outermost first."
    own = [f'{file.rsplit("/anchor_cache/")[-1]}:{line} {name}' for file, line, name in frames
           if '/anchor_cache/' in file]
    return own[-1] if own else 'outside the package'


def cause(error):
    "An exception's class, place and first line."
    frames = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__)]
    return f'{type(error).__name__} in {where(frames)}', ' '.join(str(error).split())[:160]


def mutated(name, kind, original, seed, case):
    "The damaged bytes of a case."
    return kind.mutate(random.Random(f'{seed} {name} {case}'), original)


def outcome(read, data, expected):
    "Outcome of a case and, of a failure, its cause and message."
    from anchor_cache.config import UserError
    try: content, identity = read(data)
    except UserError: return 'refused', '', ''
    except BaseException as e: return 'traceback', *cause(e)  # a panic of Rust code is no Exception
    if content == expected[0]: return 'equal', '', ''
    return ('noticed' if identity != expected[1] else 'SILENT'), '', ''


def open_kind(kind, folder):
    "A kind's original bytes, its reader, and what the reader gives of them; twice the same."
    original, read = kind.open(folder)
    expected = read(original)
    if read(original) != expected: raise RuntimeError('two readings of the undamaged file differ')
    return original, read, expected


def quiet():
    "Keep a worker from printing, from leaving core dumps and from ending at Ctrl-C, which its parent sees to."
    warnings.simplefilter('ignore')
    logging.getLogger('anchor_cache').propagate = False
    logging.getLogger('anchor_cache').setLevel(logging.INFO)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2): os.dup2(null, stream)


def peak():
    "The most memory that this process has held, in GB."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == 'darwin' else 1e6)


def cases(conn, options, name, numbers, opened):
    "Run some cases of a kind, and send the outcome of each."
    original, read, expected = opened
    for case in numbers:
        data = mutated(name, options.kinds[name], original, options.seed, case)
        start, before = time.perf_counter(), peak()
        found = outcome(read, data, expected)
        if peak() - before > options.memory: found = 'memory', *found[1:]
        if options.save and found[0] in FAILED: (options.save/f'{name}-{case}'.replace(' ', '-')).write_bytes(data)
        conn.send((case, *found, time.perf_counter() - start))


def work(conn, folder, options, parent):
    "A worker: chunks come, outcomes go, until None comes or the parent is gone."
    quiet()
    folder.mkdir()
    stack, current, opened = open(folder/'stack', 'w'), None, None
    faulthandler.enable(stack)
    faulthandler.register(signal.SIGUSR1, stack)
    while os.getppid() == parent:
        if not conn.poll(5): continue
        if (chunk := conn.recv()) is None: return
        name, numbers = chunk
        if name != current: opened = open_kind(options.kinds[name], Path(tempfile.mkdtemp(dir=folder)))
        current = name
        conn.send('open')
        cases(conn, options, name, numbers, opened)


class Worker:
    "A worker process, as its parent sees it."
    def __init__(self, base, options):
        self.options, self.folder = options, Path(tempfile.mkdtemp(dir=base))/'work'
        self.conn, theirs = FORK.Pipe()
        self.process = FORK.Process(target=work, args=(theirs, self.folder, options, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.name, self.left, self.start = '', collections.deque(), 0.

    def send(self, name, numbers):
        self.conn.send((name, numbers))
        self.name, self.left, self.start, self.opening = name, collections.deque(numbers), time.perf_counter(), True

    def overdue(self):
        "Why the worker must be stopped, or nothing."
        if not self.left: return ''
        allowed = (OPENING if self.opening else self.options.seconds) * max(1, os.getloadavg()[0] / os.cpu_count())
        if time.perf_counter() - self.start > allowed: return 'hang'
        with contextlib.suppress(OSError):
            pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
            if pages * resource.getpagesize() / 1e9 > self.options.memory + 1: return 'memory'
        return ''

    def stop(self):
        "End the process; the innermost frame in the package where it stood."
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(.2)
        self.process.kill()
        self.process.join()
        stack = (self.folder/'stack').read_text() if (self.folder/'stack').exists() else ''
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        return where(re.findall(r'File "(.+?)", line (\d+) in (\S+)', stack)[::-1])


class Counts:
    "Outcomes of one kind."
    def __init__(self): self.outcomes, self.causes, self.seconds = collections.Counter(), {}, 0.

    def add(self, case, found, why, text, seconds):
        self.outcomes[found] += 1
        self.seconds += seconds
        if found in FAILED: self.causes.setdefault((found, why), []).append((case, text))


class Run:
    "All cases of all kinds, over workers that are replaced when they end."
    def __init__(self, options):
        self.options, self.counts = options, {name: Counts() for name in options.kinds}
        self.todo = {name: collections.deque(range(max(1, int(options.cases * kind.share))))
                     for name, kind in options.kinds.items()}

    def chunk(self, worker, others):
        "Give a worker its next cases, of the kind it has open where some are left; False where nothing is."
        open_by_others = {w.name for w in others if w is not worker and w.left}
        left = [name for name, numbers in self.todo.items() if numbers]
        if not left: return False
        name = worker.name if worker.name in left else min(left, key=lambda n: n in open_by_others)
        numbers = self.todo[name]
        worker.send(name, [numbers.popleft() for _ in range(min(CHUNK, len(numbers)))])
        return True

    def receive(self, worker):
        "Take one message; False where the worker has died."
        try: message = worker.conn.recv()
        except (EOFError, OSError): return False
        worker.start, worker.opening = time.perf_counter(), False
        if message != 'open':
            self.counts[worker.name].add(*message)
            worker.left.popleft()
        return True

    def lost(self, worker, why):
        "Count the case that ended a worker, and put back the others."
        place, name = worker.stop(), worker.name
        if worker.opening: raise SystemExit(f'{name}: {why} before its first case, in {place}; try --case 0')
        case, seconds = worker.left.popleft(), time.perf_counter() - worker.start
        self.counts[name].add(case, why, place, f'exit code {worker.process.exitcode}', seconds)
        self.todo[name].extendleft(reversed(worker.left))

    def run(self, base):
        "Run all; Ctrl-C ends it early, with the counts so far."
        workers = [Worker(base, self.options) for _ in range(self.options.workers)]
        try:
            while True:
                busy = [w for w in workers if w.left or self.chunk(w, workers)]
                if not busy: return
                ready = wait([w.conn for w in busy], .5)
                for worker in busy:
                    why = worker.overdue()
                    if worker.conn in ready and not why and not self.receive(worker): why = 'crash'
                    if why:
                        self.lost(worker, why)
                        workers[workers.index(worker)] = Worker(base, self.options)
        except KeyboardInterrupt: print('interrupted: what follows is only the first of it', file=sys.stderr)
        finally:
            for worker in workers: worker.process.kill()


def table(counts):
    "A line for each kind."
    head = f'{"kind":22}' + ''.join(f'{name:>10}' for name in ('cases', *FINE, *FAILED, 'seconds'))
    def row(name, c):
        numbers = sum(c.outcomes.values()), *(c.outcomes[k] for k in FINE + FAILED)
        return f'{name:22}' + ''.join(f'{n:>10,}' for n in numbers) + f'{c.seconds:>10.0f}'
    return '\n'.join([head, *(row(name, c) for name, c in counts.items())])


def failures(options, counts):
    "Lines about the causes of failures, the most frequent first, and whether any is unexplained."
    lines, bad = [], False
    for name, c in counts.items():
        for (found, why), seen in sorted(c.causes.items(), key=lambda item: -len(item[1])):
            explained = found == 'SILENT' and options.kinds[name].explained
            bad = bad or not explained
            numbers = ', '.join(str(case) for case, _ in seen[:SHOWN])
            lines.append(f'{name}: {len(seen)} × {found} {explained or why}; {seen[0][1]} [--case {numbers}]')
    return lines, bad


def fuzz(options):
    "Run everything; the counts by kind."
    run = Run(options)
    if options.save: options.save.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None) as base: run.run(base)
    return run.counts


def one_case(options, name, case):
    "Run one case in this process and say what happened."
    faulthandler.dump_traceback_later(options.seconds, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        original, read, expected = open_kind(options.kinds[name], Path(folder))
        data = mutated(name, options.kinds[name], original, options.seed, case)
        if options.save: options.save.write_bytes(data)
        print(f'{name} {case}: {len(original)} bytes, {len(data)} after the damage, {data[:300]!r}')
        try: content, identity = read(data)
        except BaseException: return traceback.print_exc()
    print('content equal:', content == expected[0], ' identity equal:', identity == expected[1])


def planted():
    "Kinds that fail on purpose: a test of the counting."
    from fuzz_base import Kind
    def plant(fault):
        def open_planted(folder):
            def read(data):
                if data != b'planted': fault()
                return 0, 0
            return b'planted', read
        return Kind(open_planted)
    def fall(): return [][0]
    class Panic(BaseException): pass
    def panic(): raise Panic
    return dict(falls=plant(fall), panics=plant(panic), sleeps=plant(lambda: time.sleep(60)),
                dies=plant(lambda: os.kill(os.getpid(), signal.SIGSEGV)), eats=plant(lambda: bytes(bytearray(10 ** 9))))


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kinds', nargs='+', metavar='KIND', help='these kinds only (default: all)')
    parser.add_argument('--cases', type=int, default=Options.cases, help='of each kind; slow kinds have a share of it')
    parser.add_argument('--seed', type=int, default=Options.seed)
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes (default: one for each core)')
    parser.add_argument('--seconds', type=float, default=Options.seconds, help='after which a case hangs')
    parser.add_argument('--memory', type=float, default=Options.memory, help='GB that a case may take')
    parser.add_argument('--save', type=Path, metavar='DIR', help='keep failing inputs here; of --case, a file')
    parser.add_argument('--case', type=int, help='run this case of one kind alone')
    parser.add_argument('--planted', action='store_true', help='kinds that fail on purpose, to test the counting')
    return parser, parser.parse_args(argv)


def main(argv=None):
    parser, given = parse(argv)
    os.environ.update(TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1')
    import fuzz_kinds
    import fuzz_teachers
    kinds = planted() if given.planted else fuzz_kinds.KINDS
    if unknown := set(given.kinds or ()) - set(kinds):
        parser.error(f'--kinds: got {", ".join(unknown)}, expected some of {", ".join(kinds)}')
    fuzz_teachers.prepare()
    options = Options({name: kinds[name] for name in given.kinds or kinds}, given.cases, given.seed, given.workers,
                      given.seconds, given.memory, given.save)
    if given.case is not None: return one_case(options, given.kinds[0], given.case)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start, counts = time.perf_counter(), fuzz(options)
    lines, bad = failures(options, counts)
    print(table(counts), *lines, f'seed {options.seed}, {time.perf_counter() - start:.0f} s', sep='\n')
    return int(bad)


if __name__ == '__main__':
    sys.exit(main())
