"""For trust.py: builds that are killed or stopped, and resumed."""
import functools
import signal
import time

from trust_base import Broken, Case, Child
from trust_patches import at_call, at_lock, at_write, count_calls, kill_self, shorten

ENDS = dict(SIGINT='interrupted', SIGTERM='stopped by SIGTERM', SIGHUP='stopped by SIGHUP')


def end_at_random(place, end, seconds, *patches):
    """Start a build and end it at a random moment of its life; the child, and in which part of its life that was.

    A fifth of them anywhere, two fifths after the folder has appeared, two fifths when some shards are there. One that
    ends by itself before its moment is no case: it is started again in an empty folder."""
    for _ in range(50):
        child = place.build(*patches)
        kind = place.rng.random()
        if kind < .2: time.sleep(place.rng.uniform(.05, seconds[0]))
        else: place.until_begun(child)
        if .2 <= kind < .6: time.sleep(place.rng.uniform(0, seconds[1]))
        elif kind >= .6:
            wanted = place.rng.randrange(1, 7)
            while place.shards() < wanted and not child.ended(): time.sleep(.001)
            time.sleep(place.rng.uniform(0, seconds[1] / 20))
        when = stage(place)
        if end(child): return child, when
        if child.wait(): raise Broken(f'ended by itself with status {child.status}: {child.tail()}')
        for path in place.folder.iterdir(): path.unlink()
        place.folder.rmdir()
    raise Broken('every build ended before its moment')


def stage(place):
    "How far a build has come."
    if not (place.folder/'manifest.json').exists(): return 'before the manifest'
    if (place.folder/'complete.json').exists(): return 'complete'
    return 'in the shards' if place.shards() else 'before the first shard'


def killed(place, seconds, usual):
    "Kill a build and resume it; of some, with the waits that a user has."
    _, when = end_at_random(place, Child.kill, seconds)
    place.check_resumed(*[shorten(5., 1.)] * usual)
    return {'equal', when}


def killed_again(place, seconds):
    "Kill a build, then its resumed build, three times."
    for _ in range(3):
        child = place.build(shorten())
        time.sleep(place.rng.uniform(.3, seconds[0]))
        child.kill()
    place.check_resumed()
    return {'equal'}


def dies(place, patch):
    "A build that dies at a call, and resumes."
    child = place.build(patch)
    if child.wait() not in (0, -signal.SIGKILL): raise Broken(f'status {child.status}: {child.tail()}')
    place.check_resumed()
    return {'equal'} | ({'had ended'} if child.status == 0 else set())


def stopped(place, seconds, name, twice):
    "Ask a build to end with a signal, or with two."
    number = getattr(signal, name)
    child, when = end_at_random(place, lambda child: child.catches() and child.send(number), seconds)
    if twice:
        time.sleep(place.rng.uniform(0, .05))
        child.send(number)
    status, complete = child.wait(30), (place.folder/'complete.json').exists()
    seen = {'equal', when}
    if twice and status == -number and child.line().startswith(ENDS[name]): status = 128 + number  # after its last line
    if not (complete and status in (0, -number)):  # it had ended before it was asked
        if status != 128 + number: raise Broken(f'{name}: status {status}: {child.tail()}')
        if not twice and not child.line().startswith(ENDS[name]): raise Broken(child.tail())
        seen |= {'found'}
    left = [p.name for p in place.folder.glob('.*')] if place.folder.exists() else []
    if left and not twice: raise Broken(f'{name} left {", ".join(left)}')
    place.check_resumed()
    return seen


def stopped_at(place, patch):
    "A build that gets SIGTERM at a call."
    child = place.build(patch)
    if status := child.wait():
        if status != 128 + signal.SIGTERM: raise Broken(f'status {status}: {child.tail()}')
        child.line('stopped by SIGTERM')
    left = [p.name for p in place.folder.glob('.*')] if place.folder.exists() else []
    if left: raise Broken(f'left {", ".join(left)}')
    place.check_resumed()
    return {'equal', 'found' if status else 'had ended'}


def kills(lab, options):
    "A build that is killed with SIGKILL at random moments, and at every single call that changes the folder."
    seconds = lifetime(lab)
    yield from (Case('kill -9 at a random moment', functools.partial(killed, seconds=seconds, usual=k % 20 == 0))
                for k in range(options.kills))
    yield from (Case('kill -9 three times in a row', functools.partial(killed_again, seconds=seconds))
                for _ in range(max(1, options.kills // 20)))
    step = max(1, 100 // options.kills)
    yield from (Case(f'death before call k of {lab.calls}', functools.partial(dies, patch=at_call(k, kill_self)))
                for k in range(1, lab.calls + 1, step))
    yield from (Case(f'death in piece k of {lab.writes} of the shards',
                     functools.partial(dies, patch=at_write(k, kill_self)))
                for k in range(1, lab.writes + 1, max(1, lab.writes // 40) * step))


def signals(lab, options):
    "A build that gets a signal at random moments, or two of them."
    seconds = lifetime(lab)
    yield from (Case(name + ' twice' * twice, functools.partial(stopped, seconds=seconds, name=name, twice=twice))
                for name in ENDS for k in range(max(1, options.kills // 3)) for twice in [k % 5 == 4])
    step, stop = max(1, 100 // options.kills), functools.partial(kill_self, signal.SIGTERM)
    yield from (Case('SIGTERM before call k', functools.partial(stopped_at, patch=at_call(k, stop)))
                for k in range(1, lab.calls + 1, 6 * step))
    yield from (Case('SIGTERM when a temporary file is opened', functools.partial(stopped_at, patch=at_lock(k, stop)))
                for k in range(1, lab.calls // 5, 2 * step))


def lifetime(lab):
    "Seconds of an undisturbed build, and of its part from the moment its folder appears; its calls are counted too."
    if hasattr(lab, 'seconds'): return lab.seconds
    folder, counted, began = lab.base/'timed', lab.base/'calls', None
    child = Child(lab.words(folder, seed=1), lab.base/'timed.log', [count_calls(counted)])
    while not child.ended():
        if began is None and folder.exists(): began = time.monotonic()
        time.sleep(.001)
    lab.seconds = time.monotonic() - child.start, time.monotonic() - began
    lab.calls, lab.writes = (counted.read_bytes().count(mark) for mark in (b'.', b'w'))
    return lab.seconds
