"""For trust.py: several processes that build one cache, and builds that want one folder for different caches."""
import functools
import itertools
import re
import signal
import time

from trust_base import Broken, Case, differences
from trust_patches import at_call, kill_self, shorten, without_locks
from trust_stops import lifetime

STALE = 2.  # seconds; 120 in a real build


def shuffled(rng):
    "A patch: shards are claimed in a random order."
    seed = rng.random()
    def patch():
        import random

        from anchor_cache.claims import Claims
        choose, own = Claims.choose, random.Random(seed)
        Claims.choose = lambda self, missing: choose(self, own.sample(list(missing), len(missing)))
    return patch


def crew(place, count, late=None, *patches):
    "Start the processes of a build in a random order, as torchrun's variables place them; one of them comes late."
    ranks, children = place.rng.sample(range(count), count), {}
    for rank in sorted(ranks, key=lambda r: r == late):
        if rank == late:
            first = children[min(children)]
            while place.shards() < 2 and not first.ended(): time.sleep(.003)
        environ = dict(RANK=str(rank), WORLD_SIZE=str(count))
        children[rank] = place.build(shorten(stale=STALE), shuffled(place.rng), *patches, environ=environ)
        time.sleep(place.rng.choice((0, 0, place.rng.uniform(0, .3))))
    return children


def check_together(place, children, but=()):
    "Wait for processes; raises `Broken` unless they end well and the cache is whole."
    for rank, child in children.items():
        status = child.wait()
        if status and rank not in but: raise Broken(f'process {rank}: status {status}: {child.tail()}')
    if told := differences(place.folder, place.lab.made[1]): raise Broken('; '.join(told[:4]))
    return {'equal'}


def computed(children):
    "Records that processes computed, all together."
    return sum(int(n) for c in children.values() for n in re.findall(r'bytes, (\d+) computed', c.text()))


def paused_and_killed(place, count, paused, dead, *patches):
    "Of some processes one is stopped and continued, one killed and not started again."
    children = crew(place, count, None, *patches)
    while not place.folder.exists(): time.sleep(.001)
    time.sleep(place.rng.uniform(0, .8))
    children[paused].send(signal.SIGSTOP)
    hit = children[dead].kill()
    for rank, child in children.items():
        if rank not in (paused, dead): child.wait()
    time.sleep(0 if place.rng.random() < .5 else STALE * 1.2)
    children[paused].send(signal.SIGCONT)
    return check_together(place, children, (dead,)) | ({'killed'} if hit else set())


def together(place, count, late, *patches):
    "Processes of which none is disturbed; one may come late."
    children = crew(place, count, late, *patches)
    seen = check_together(place, children)
    return seen | ({'made twice'} if computed(children) > 20 else set())


def processes(lab, options):
    "Two, three and four processes on one cache."
    share = max(1, 100 // options.kills)
    for count in (2, 3, 4):
        for _ in range(0, 3, share):
            yield Case(f'{count} processes', functools.partial(together, count=count, late=None))
        for late in range(0, count, share):
            yield Case(f'{count} processes, one late', functools.partial(together, count=count, late=late))
        for paused, dead in itertools.islice(itertools.permutations(range(count), 2), 0, None, share):
            kind = f'{count} processes, one paused, one killed'
            yield Case(kind, functools.partial(paused_and_killed, count=count, paused=paused, dead=dead))
    for count in (2, 4)[:max(1, 2 // share)]:
        yield Case('processes, no locks', lambda place, n=count: together(place, n, None, without_locks))
        yield Case('processes, no locks, one paused, one killed',
                   lambda place, n=count: paused_and_killed(place, n, 0, 1, without_locks))


# Rivals
def judge(place, rivals, overwriting):
    """What became of two builds of different caches in one folder; raises `Broken` for a mixed one.

    `rivals` has a seed and its build. Each must be done, with the cache it asked for, or have been refused."""
    for child in rivals.values(): child.wait()
    told = {seed: differences(place.folder, place.lab.made[seed]) for seed in rivals}
    done = [seed for seed, child in rivals.items() if child.status == 0]
    for child in rivals.values():
        if child.status == 2: child.line('error:')
        elif child.status: raise Broken(f'status {child.status}: {child.tail()}')
    whole = [seed for seed, problems in told.items() if not problems]
    said = {seed: f'status {child.status}: {child.tail()}' for seed, child in rivals.items()}
    if not whole: raise Broken(f'neither cache is whole: {dict(told)}; {said}')
    if whole[0] not in done: raise Broken(f'seed {whole[0]} is whole, but its build was refused; {said}')
    if len(done) == 2 and not overwriting: raise Broken(f'both ended with 0; {said}')
    return {'equal', 'one after the other' if len(done) == 2 else 'found'}


def rival(place, first, second, stop, patience=2., patches=()):
    "Two builds begin together; one is stopped in the middle, and goes on when the other has ended."
    begin = {1: first, 2: second}
    rivals = {}
    for seed in place.rng.sample((1, 2), 2):
        rivals[seed] = place.build(shorten(patience=patience), *patches, seed=seed, overwrite=begin[seed])
        time.sleep(place.rng.choice((0, place.rng.uniform(0, .5))))
    if stop:
        place.until_begun(rivals[stop])
        time.sleep(place.rng.uniform(0, .8))
        rivals[stop].send(signal.SIGSTOP)
        other = rivals[3 - stop]
        end = time.monotonic() + patience + 20
        while not other.ended() and time.monotonic() < end: time.sleep(.01)
        rivals[stop].send(signal.SIGCONT)
    return judge(place, rivals, first or second)


def rival_at(place, number, over, stale=None, patches=()):
    "A build stops itself at its k-th call that changes the folder, its rival comes and ends, and it goes on."
    def stop(): kill_self(signal.SIGSTOP)
    slow = place.build(shorten(patience=1., stale=stale), *patches, at_call(number, stop), seed=1, overwrite=over)
    end = time.monotonic() + 30
    while not slow.ended() and stopped_state(slow.pid) != 'T' and time.monotonic() < end: time.sleep(.005)
    time.sleep(1.2 * (stale or 0))
    other = place.build(shorten(patience=1., stale=stale), *patches, seed=2, overwrite=True)
    while not other.ended() and time.monotonic() < end: time.sleep(.01)
    slow.send(signal.SIGCONT)
    return judge(place, {1: slow, 2: other}, True)


def stopped_state(pid):
    "The letter that /proc has for a process's state."
    try:
        with open(f'/proc/{pid}/stat') as f: return f.read().rpartition(')')[2].split()[0]
    except OSError: return ''


def mended(place, begin):
    "Rivals on a file system without locks: what is mixed nevertheless is found by a resumed build, and made again."
    seen = set()
    try: seen = begin(place, patches=(without_locks,))
    except Broken as e: seen, why = {'mixed, then mended'}, str(e)
    else: why = ''
    manifest = (place.folder/'manifest.json').read_bytes() if (place.folder/'manifest.json').exists() else b''
    owner = next((s for s in (1, 2) if place.lab.made[s]['manifest.json'] == manifest), 1)
    try: place.check_resumed(seed=owner, overwrite=True)
    except Broken as e: raise Broken(f'{e}; before: {why}') from None
    return seen | {'equal'}


def rivals(lab, options):
    "Builds with seed 1 and seed 2 in one folder, with --overwrite and without, one of them stopped for a while."
    share = max(1, 100 // options.kills)
    names = {(False, False): 'neither', (True, False): 'one', (False, True): 'one', (True, True): 'both'}
    for (first, second), name in names.items():
        for stop in (None, 1, 2):
            for _ in range(0, 4, share):
                kind = f'rivals, {name} with --overwrite' + ', one stopped' * bool(stop)
                yield Case(kind, functools.partial(rival, first=first, second=second, stop=stop))
    lifetime(lab)
    for k in range(1, lab.calls + 1, 4 * share):
        yield Case('rival at call k', functools.partial(rival_at, number=k, over=bool(k % 8 == 1)))
    for stop in (1, 2)[:max(1, 2 // share)]:
        for _ in range(0, 4, share):
            begin = functools.partial(rival, first=True, second=True, stop=stop)
            yield Case('rivals, no locks', functools.partial(mended, begin=begin))
    for k in range(1, lab.calls + 1, 8 * share):
        begin = functools.partial(rival_at, number=k, over=True, stale=1.)
        yield Case('rival at call k, no locks, claims stale', functools.partial(mended, begin=begin))
