"""For trust.py: what a process changes in itself before it builds.

`warm` and `stock` are for the parent: they import what is slow to import, and keep what is slow to make and not under
test. The others give patches, functions that a child calls before it begins: shorter waits, no locks, something that
happens at the k-th call which changes the folder.
"""
import functools
import importlib
import itertools
import os
import signal
import threading

CALLS = ('replace', 'link', 'unlink', 'fsync', 'utime')  # of `os`, by which a build changes a folder


def warm():
    "Import all that a build imports; nothing is computed, so that no thread but this one matters to a fork."
    os.environ.update(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false', HF_HUB_OFFLINE='1', TF_CPP_MIN_LOG_LEVEL='3')
    for name in ('torch', 'timm', 'transformers', 'tensorflow', 'anchor_cache.build', 'anchor_cache.runs',
                 'anchor_cache.planning', 'anchor_cache.teachers.prismatic_teacher'): importlib.import_module(name)
    import torch
    torch.set_num_threads(1)


def stock(models=4):
    "Keep what is slow to make and not under test: the tokenizer, models without weights, what pip has installed."
    from anchor_cache import build
    from anchor_cache.teachers import prismatic_teacher, prompts
    make, kept = prismatic_teacher.meta_model, []
    def meta_model(spec):
        if not kept: kept.extend((spec, make(spec)) for _ in range(models + 1))
        return kept.pop()[1] if kept[-1][0] == spec and len(kept) > 1 else make(spec)
    prismatic_teacher.meta_model = meta_model
    prompts._read_tokenizer = functools.lru_cache(prompts._read_tokenizer)
    prompts._check_files = functools.lru_cache(prompts._check_files)
    build.unmet_requirements = functools.lru_cache(build.unmet_requirements)


def shorten(young=.3, poll=.05, patience=10., stale=None):
    "A patch: what waits for dead or slow processes waits less long."
    def patch():
        from anchor_cache import caches, claims, runs
        claims._YOUNG, runs._POLL, caches._PATIENCE = young, poll, patience
        if stale:
            claims.Claims.__init__.__defaults__ = (claims.Place(), stale / 8, stale)
            claims.read_claims.__defaults__ = (None, stale)
    return patch


def without_locks():
    "A patch: a file system that has no locks."
    from anchor_cache import files, stores
    files.lock_file = stores.lock_file = lambda file, shared=False, wait=False: None


def at_call(number, act):
    "A patch: `act` right before the so-manyth of the calls in `CALLS`, counted together."
    def patch():
        counter, lock = itertools.count(1), threading.Lock()
        def wrap(call):
            def wrapped(*args, **kwargs):
                with lock: due = next(counter) == number
                if due: act()
                return call(*args, **kwargs)
            return wrapped
        for name in CALLS: setattr(os, name, wrap(getattr(os, name)))
    return patch


def at_lock(number, act):
    "A patch: `act` when the so-manyth temporary file is there, and not yet locked."
    def patch():
        from anchor_cache import files
        counter, lock_file = itertools.count(1), files.lock_file
        def wrapped(file, shared=False, wait=False):
            if wait and next(counter) == number: act()
            return lock_file(file, shared, wait)
        files.lock_file = wrapped
    return patch


def count_calls(path):
    "A patch: write a `.` to a file for each of the calls in `CALLS`, and a `w` for each piece of a shard."
    def patch():
        from anchor_cache import shards
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        def wrap(call, mark): return lambda *args, **kwargs: (os.write(file, mark), call(*args, **kwargs))[1]
        for name in CALLS: setattr(os, name, wrap(getattr(os, name), b'.'))
        shards.HashingFile.write = wrap(shards.HashingFile.write, b'w')
    return patch


def at_write(number, act):
    "A patch: `act` when half of the so-manyth piece of a shard is written and flushed."
    def patch():
        from anchor_cache import shards
        counter, write = itertools.count(1), shards.HashingFile.write
        def wrapped(self, data):
            if next(counter) != number: return write(self, data)
            self.file.write(bytes(data)[:len(data) // 2])
            self.file.flush()
            act()
            raise AssertionError('still alive')
        shards.HashingFile.write = wrapped
    return patch


def kill_self(number=signal.SIGKILL): os.kill(os.getpid(), number)
