"""For trust.py: bits that flip, files that are swapped or cut, and shards that are malicious pickles.

Flips are looked at and mended in the worker itself: forking a build for each would take an hour. Pickles are put where
a shard was, as they are and with a sidecar and a complete.json that agree with them."""
import dataclasses
import functools
import hashlib
import importlib.util
import io
import logging
import os
import pickle
import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path

import torch
from trust_base import Broken, Case, differences

from anchor_cache.caches import COMPLETE, MANIFEST, completion
from anchor_cache.companions import COMPANIONS
from anchor_cache.config import UserError
from anchor_cache.manifests import SELF, signed_bytes
from anchor_cache.shards import read_shard, read_sidecar, shard_name
from anchor_cache.stores import LocalStore

FLIPS = {'a shard': .4, 'a sidecar': .3, 'the manifest': .15, 'complete.json': .15}  # kind of file → share of the flips


def faults(folder):
    "Files that `anchor_cache.verify` finds something wrong about; None without that module."
    if not importlib.util.find_spec('anchor_cache.verify'): return None
    look_at_cache = importlib.import_module('anchor_cache.verify').look_at_cache
    try: report = look_at_cache(LocalStore(folder))
    except UserError as e: return [str(e)]
    return [] if report.whole else [f.file for f in report.of('damaged', 'missing')]


KEPT = []  # the teacher, once a build of this process has asked for it


def keep_teacher(load):
    "A function that loads the teacher once in this process, not for each build."
    def kept(*args):
        if not KEPT: KEPT.append(load(*args))
        return KEPT[0]
    return kept


def rebuild(place):
    "Run the build of a place in this process; the line that it is refused with, or nothing."
    from anchor_cache import runs
    logging.disable(logging.WARNING)
    plan = place.lab.planned
    if runs._load.__name__ != 'kept': runs._load = keep_teacher(runs._load)
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, output_dir=str(place.folder)))
    try: runs.run_build(plan, progress=False)
    except UserError as e: return str(e)
    return ''


def damage(place, change):
    "Change a whole cache by `change`, which says what it hit: verify finds it, and the build mends or refuses it."
    shutil.copytree(place.lab.base/'reference-1', place.folder)
    what, seen = change(place), {'equal'}
    if not differences(place.folder, place.lab.made[1]): raise AssertionError('nothing was changed')
    found = faults(place.folder)
    if found == []: raise Broken(f'{what}: verify calls it whole')
    name = what.split(',')[0].split()[0]
    if found and name in place.lab.made[1] and not any(name in told for told in found):
        raise Broken(f'{what}: verify names {found} instead')
    seen |= {'no verify'} if found is None else {'found'}
    refused = rebuild(place)
    if refused:
        if MANIFEST not in what or '\n' in refused: raise Broken(f'{what}: {refused}')
        seen |= {'refused by the build'}
        (place.folder/MANIFEST).write_bytes(place.lab.made[1][MANIFEST])
        rebuild(place)
    if told := differences(place.folder, place.lab.made[1]): raise Broken(f'{what}, resumed: {"; ".join(told[:4])}')
    return seen


def flip(kind, place):
    "Flip one bit of one file."
    ends = {'a shard': '.pt', 'a sidecar': '.json'}
    number = place.rng.randrange(len(place.lab.planned.manifest['shards']))
    name = shard_name(number, ends[kind]) if kind in ends else MANIFEST if kind == 'the manifest' else COMPLETE
    data = bytearray((place.folder/name).read_bytes())
    bit = place.rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    (place.folder/name).write_bytes(data)
    return f'{name}, bit {bit}'


def swap(ends, place):
    "Swap files of two shards."
    a, b = place.rng.sample(range(6), 2)
    for end in ends:
        one, two = place.folder/shard_name(a, end), place.folder/shard_name(b, end)
        data = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(data)
    return f'shards {a} and {b} swapped'


def foreign(ends, place):
    "Put files of the cache of another seed in place of this one's."
    number = place.rng.randrange(7)
    for end in ends: (place.folder/shard_name(number, end)).write_bytes(place.lab.made[2][shard_name(number, end)])
    return f'shard {number} of another cache'


def spoil(how, place):
    "Zero a page of a file, fill it with noise, cut it, lengthen it, or empty it."
    name = place.rng.choice(sorted(set(place.lab.made[1]) - {MANIFEST, *COMPANIONS}))
    data = bytearray((place.folder/name).read_bytes())
    at = place.rng.randrange(0, max(1, len(data) - 4096), 512)
    if how == 'zeroed': data[at:at + 4096] = bytes(len(data[at:at + 4096]))
    elif how == 'noise': data[at:at + 4096] = place.rng.randbytes(len(data[at:at + 4096]))
    elif how == 'cut': del data[place.rng.randrange(len(data)):]
    elif how == 'longer': data += bytes(place.rng.randint(1, 4096))
    else: data.clear()
    (place.folder/name).write_bytes(data)
    return f'{name} {how}'


def missing(place):
    "Remove a file."
    name = place.rng.choice(sorted(set(place.lab.made[1]) - {MANIFEST, *COMPANIONS}))
    (place.folder/name).unlink()
    return f'{name} is gone'


def flips(lab, options):
    "Single bits, and other damage of whole files."
    for kind, share in FLIPS.items():
        for _ in range(max(1, round(options.flips * share))):
            yield Case(f'a bit of {kind} flips', functools.partial(damage, change=functools.partial(flip, kind)))
    others = {f'part of a file is {how}': functools.partial(spoil, how) for how in ('zeroed', 'noise', 'cut', 'longer')}
    others |= {'a file is empty': functools.partial(spoil, 'empty'), 'a file is missing': missing}
    for ends, name in {('.pt',): 'shards', ('.json',): 'sidecars', ('.pt', '.json'): 'shards with sidecars'}.items():
        others |= {f'{name} are swapped': functools.partial(swap, ends)}
        others |= {f'{name} of another cache': functools.partial(foreign, ends)}
    for name, change in others.items():
        for _ in range(max(1, options.flips // 100)): yield Case(name, functools.partial(damage, change=change))


# Malicious pickles
class Call:
    "An object whose pickle calls a function."
    def __init__(self, function, *args): self.function, self.args = function, args
    def __reduce__(self): return self.function, self.args


def saved(value, **options):
    "The bytes that torch.save writes."
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def with_pickle(data, pickled, twice=False):
    "A file of torch.save with another pickle in it, or with both."
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
        for entry in old.infolist():
            own = entry.filename.endswith('data.pkl')
            new.writestr(zipfile.ZipInfo(entry.filename), pickled if own else old.read(entry))
            if own and twice: new.writestr(zipfile.ZipInfo(entry.filename.replace('data.pkl', './data.pkl')), pickled)
    return out.getvalue()


def in_record(shard, value):
    "A shard with something else in place of one feature."
    records = [dict(r) for r in shard['records']]
    records[1]['target_features'] = value
    return dict(shard, records=records)


def payloads(canary):
    "Name → an object whose pickle makes a file, or a raw pickle that does."
    shell, code = f'touch {canary}', f"__import__('os').system('touch {canary}')"
    nested = pickle.dumps(Call(os.system, shell), 2)
    quoted = shell.encode()
    return {
        'os.system': Call(os.system, shell),
        'builtins.eval': Call(eval, code),
        'builtins.exec': Call(exec, code),
        'subprocess.Popen': Call(subprocess.Popen, ['touch', str(canary)]),
        'runpy': Call(runpy._run_code, code, {}),
        'getattr of a module': (b'cbuiltins\ngetattr\n(c__builtin__\n__import__\n(S\'os\'\ntRS\'system\'\ntR'
                                b'(S' + repr(shell).encode() + b'\ntR.'),
        'pickle.loads in a pickle': Call(pickle.loads, nested),
        'torch.storage._load_from_bytes': Call(torch.storage._load_from_bytes, saved(Call(os.system, shell))),
        'torch.load of bytes': Call(torch.load, Call(io.BytesIO, saved(Call(os.system, shell))), None, None),
        'functools.partial': Call(functools.partial(os.system, shell)),
        'builtins.map in a list': Call(list, Call(map, eval, [code])),
        'pathlib': Call(Path.touch, Path(canary)),
        'protocol 0, INST': b'(S' + repr(shell).encode() + b'\nios\nsystem\n.',
        'protocol 4, STACK_GLOBAL': pickle.dumps(Call(os.system, shell), 4),
        'protocol 1, OBJ': b'(cos\nsystem\nX' + len(quoted).to_bytes(4, 'little') + quoted + b'o.',
    }


CONTAINERS = {
    'zip': lambda shard, bad: with_pickle(saved(shard), bad) if isinstance(bad, bytes) else saved(bad),
    'zip, in a record': lambda shard, bad: saved(in_record(shard, bad)),
    'zip, two pickles': lambda shard, bad: with_pickle(saved(shard), bad if isinstance(bad, bytes) else
                                                       pickle.dumps(bad, 2), True),
    'old format': lambda shard, bad: saved(bad, _use_new_zipfile_serialization=False),
    'bare': lambda shard, bad: bad if isinstance(bad, bytes) else pickle.dumps(bad, 2),
}


def forge(folder, number):
    "Make sidecar and complete.json agree with what is in place of a shard."
    store, data = LocalStore(folder), (folder/shard_name(number)).read_bytes()
    sidecar = {k: v for k, v in read_sidecar(store, number).items() if k != SELF}
    sidecar |= dict(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (folder/shard_name(number, '.json')).write_bytes(signed_bytes(sidecar))
    (folder/COMPLETE).write_bytes(signed_bytes(completion(store)))


def armed(path, canary):
    "Whether a pickle does harm where it is loaded without care, in a process of its own."
    pid = os.fork()
    if not pid:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2): os.dup2(null, stream)
        try: torch.load(path, weights_only=False)
        finally: os._exit(0)
    os.waitpid(pid, 0)
    for _ in range(20):  # a process that it has started may need a moment
        if canary.exists(): break
        subprocess.run(['sleep', '.05'], check=True)
    there = canary.exists()
    canary.unlink(missing_ok=True)
    return there


def malicious(place, container, name):
    "A malicious pickle in place of a shard: refused by the reader and by verify, made again, and never run."
    canary, number = place.base/'canary', place.rng.randrange(7)
    shutil.copytree(place.lab.base/'reference-1', place.folder)
    path = place.folder/shard_name(number)
    shard = torch.load(path, weights_only=True)
    path.write_bytes(CONTAINERS[container](shard, payloads(canary)[name]))
    seen = {'found', 'equal'} | ({'armed'} if armed(path, canary) else set())
    try: read_shard(path)
    except UserError as e:
        if '\n' in str(e): raise Broken(str(e)) from None
    else: raise Broken('read_shard takes it')
    damaged, before = path.read_bytes(), {p: p.read_bytes() for p in place.folder.glob('*.json')}
    for forged in (False, True):
        if forged:
            for p, data in before.items(): p.write_bytes(data)
            path.write_bytes(damaged)
            forge(place.folder, number)
        found = faults(place.folder)
        if found is None: seen |= {'no verify'}
        elif path.name not in found: raise Broken(f'verify does not name it{" when it is forged" * forged}: {found}')
        if not forged: place.check_resumed()
        elif (child := place.build()).wait(): raise Broken(f'status {child.status}: {child.tail()}')
    if canary.exists(): raise Broken('it was executed')
    return seen


def pickles(lab, options):
    "Malicious pickles of many kinds, in several containers."
    for container in CONTAINERS:
        for name, bad in payloads('x').items():
            if isinstance(bad, bytes) and container in ('zip, in a record', 'old format'): continue
            yield Case(f'malicious pickle, {container}', functools.partial(malicious, container=container, name=name))
