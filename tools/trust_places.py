"""For trust.py: disks that are full, folders that are read-only, and folders that go away."""
import functools
import os
import resource
import shutil
import signal
import subprocess
import time

from trust_base import NOBODY, Broken, Case, differences, files, small_disk
from trust_patches import at_call
from trust_stops import lifetime

NEEDS = 6_200  # kB of the whole cache, roughly


def refused(child, statuses):
    "Raise `Broken` unless a build ended with one of these and one line."
    status = child.wait()
    if status not in statuses: raise Broken(f'status {status}: {child.tail()}')
    child.line()
    return {'found'}


# A full disk
def full(place, options, free, **choices):
    "A build on a disk that is too small; then there is room, and it is resumed."
    place.folder = place.base/'disk'/'cache'
    with small_disk(place.base/'disk', options) as disk:
        if not disk: return {'not run'}
        child = place.build(**choices)
        seen = refused(child, (1, 2)) if child.wait() else {'fitted'}
        subprocess.run(['mount', '-o', f'remount,{free}', str(disk)], check=True)
        place.check_resumed()
    return seen | {'equal'}


def fills(place, seconds):
    "A disk that somebody else fills while the build runs; then there is room, and it is resumed."
    place.folder = place.base/'disk'/'cache'
    with small_disk(place.base/'disk', 'size=20m') as disk:
        if not disk: return {'not run'}
        child, ballast = place.build(), disk/'ballast'
        place.until_begun(child)
        time.sleep(place.rng.uniform(0, seconds[1] * .8))
        try: ballast.write_bytes(bytes(40 << 20))
        except OSError: pass
        seen = refused(child, (1, 2)) if child.wait() else {'fitted'}
        ballast.unlink()
        place.check_resumed()
    return seen | {'equal'}


def limited(place, kilobytes):
    "A build that may not write files above a size (RLIMIT_FSIZE): what is left of a full disk where none can be made."
    child = place.build(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10,) * 2))
    seen = refused(child, (1, 2))
    place.check_resumed()
    return seen | {'equal'}


def disks(lab, options):
    "Disks of many sizes, and with few inodes."
    share = max(1, 100 // options.kills)
    for size in range(100, NEEDS + 300, 350 * share):
        yield Case('a disk that is too small', functools.partial(full, options=f'size={size}k', free='size=20m'))
        yield Case('a disk that is too small, --ignore_disk',
                   functools.partial(full, options=f'size={size}k', free='size=20m', ignore_disk=True))
    for inodes in range(2, 22, share):
        few = functools.partial(full, options=f'size=20m,nr_inodes={inodes}', free='nr_inodes=100')
        yield Case('a disk with few inodes', few)
    seconds = lifetime(lab)
    for _ in range(max(1, options.kills // 8)):
        yield Case('a disk that fills', functools.partial(fills, seconds=seconds))
    for size in (8, 100, 700)[::share]: yield Case('files of limited size', functools.partial(limited, kilobytes=size))


# Read-only
def locked_folder(place, seconds):
    "A folder in which its owner forbids writing while the build runs; root ignores that, so the build is nobody's."
    place.folder.mkdir()
    uid = NOBODY if os.getuid() == 0 else None
    if uid: os.chown(place.folder, uid, uid)
    child = place.build(uid=uid)
    place.until_begun(child, ('manifest.json', 'build.log'))
    time.sleep(place.rng.uniform(0, seconds[1] * .8))
    place.folder.chmod(0o555)
    seen = refused(child, (1, 2)) if child.wait() else {'had ended'}
    place.folder.chmod(0o755)
    place.check_resumed(uid=uid)
    return seen | {'equal'}


def whole_and_locked(place, how):
    "A complete cache in a folder, or on a disk, that is read-only: the build says that it is complete already."
    uid = NOBODY if os.getuid() == 0 and how == 'folder' else None
    with small_disk(place.base/'disk', 'size=20m') as disk:
        if how == 'disk' and not disk: return {'not run'}
        place.folder = (disk or place.base)/'cache'
        shutil.copytree(place.lab.base/'reference-1', place.folder)
        if uid: subprocess.run(['chown', '-R', str(uid), str(place.folder)], check=True)
        if how == 'folder': place.folder.chmod(0o555)
        else: subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        child = place.check_resumed(uid=uid)
        if 'complete already' not in child.text(): raise Broken(child.tail())
        seen = refused(place.build(uid=uid, seed=2), (2,))  # another cache
    return seen | {'equal'}


def begun_and_locked(place):
    "A cache that is not complete on a disk that is read-only: one line."
    with small_disk(place.base/'disk', 'size=20m') as disk:
        if not disk: return {'not run'}
        place.folder = disk/'cache'
        shutil.copytree(place.lab.base/'reference-1', place.folder)
        for name in ('complete.json', 'hidden_anchor_shard_000003.json'): (place.folder/name).unlink()
        subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
        seen = refused(place.build(), (1, 2))
        subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
        place.check_resumed()
    return seen | {'equal'}


def readonly(lab, options):
    "Folders and disks that become, or are, read-only."
    seconds = lifetime(lab)
    for _ in range(max(1, options.kills // 8)):
        yield Case('read-only in the middle', functools.partial(locked_folder, seconds=seconds))
    for how in ('folder', 'disk'):
        yield Case(f'a complete cache, read-only {how}', functools.partial(whole_and_locked, how=how))
    yield Case('an unfinished cache, read-only disk', begun_and_locked)


# What goes away
def remove(folder, how):
    "Take away a folder, or its manifest; whether something was there."
    there = folder.exists()
    if how == 'manifest':
        there = (folder/'manifest.json').exists()
        (folder/'manifest.json').unlink(missing_ok=True)
        return there
    if how == 'renamed':
        if there: folder.rename(folder.with_name('elsewhere'))
        return there
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists(): shutil.rmtree(folder, ignore_errors=True)
    if how == 'made anew' and there: folder.mkdir()
    return there


def move_away(place):
    "What a user does about shards that neither a manifest nor a sidecar speaks for; --overwrite leaves them alone."
    alone = [p for p in place.folder.glob('hidden_anchor_shard_*.pt') if not p.with_suffix('.json').exists()]
    for path in alone: path.unlink()
    return {'shard to move away'} if alone else set()


def after_loss(place, child, how):
    "Raise `Broken` unless a build that lost its folder said so or made a whole cache; then resume it."
    status = child.wait()
    told = differences(place.folder, place.lab.made[1])
    if status == 0:
        if told and not place.lost_late: raise Broken(f'{how}: status 0, and {"; ".join(told[:3])}')
        seen = {'had ended'} if told else {'whole all the same'}
    else: seen = refused(child, (1, 2))
    orphans = how == 'manifest' and any(place.folder.glob('hidden_anchor_shard_*'))
    if orphans and not (place.folder/'manifest.json').exists():  # nobody can tell what the shards are
        seen |= refused(place.build(), (2,))
        seen |= move_away(place)
        place.check_resumed(overwrite=True)
    else: place.check_resumed()
    return seen | {'equal'}


def goes(place, how, seconds):
    "A folder, or its manifest, goes at a random moment."
    child = place.build()
    place.until_begun(child, ('manifest.json',))
    time.sleep(place.rng.uniform(0, seconds[1] * .9))
    child.send(signal.SIGSTOP)  # so that it cannot end between the two
    place.lost_late = child.ended() or (place.folder/'complete.json').exists()
    remove(place.folder, how)
    child.send(signal.SIGCONT)
    return after_loss(place, child, how)


def goes_at(place, how, number):
    "A folder, or its manifest, goes right before the k-th call that changes it."
    mark = place.base/'late'
    def act():
        if (place.folder/'complete.json').exists(): mark.touch()
        files_before = files(place.folder) if place.folder.exists() else {}
        if files_before: remove(place.folder, how)
    child = place.build(at_call(number, act))
    child.wait()
    place.lost_late = mark.exists()
    return after_loss(place, child, how)


def gone(lab, options):
    "Output folders that are removed, renamed, or removed and made anew; manifests that are removed."
    seconds, share = lifetime(lab), max(1, 100 // options.kills)
    for how in ('removed', 'made anew', 'renamed', 'manifest'):
        kind = 'the manifest is removed at {}' if how == 'manifest' else f'the folder is {how} at {{}}'
        for _ in range(max(1, options.kills // 8)):
            yield Case(kind.format('random'), functools.partial(goes, how=how, seconds=seconds))
        for k in range(1, lab.calls + 1, 9 * share):
            yield Case(kind.format('call k'), functools.partial(goes_at, how=how, number=k))
