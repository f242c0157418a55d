"""Disturb a small build in every way that a cluster knows, and see that its cache is whole and the same anyway.

    python tools/trust.py                         everything: 100 kills, 1,000 flips; exit status 1 for any failure
    python tools/trust.py --only kills rivals     some parts
    python tools/trust.py --kills 5 --flips 20    fewer cases

A random teacher and the demo's frames make 20 records in 7 shards. A case disturbs that build, resumes it, and compares
every file but build.log with an undisturbed build, byte for byte: `equal` counts those. `found` counts the cases in
which a build ended as it must with one line and the right exit status, or damage was found. trust_base.py has the
machinery; the other trust_*.py files have the parts.
"""
import argparse
import collections
import os
import shutil
import sys
import tempfile
import time

COLUMNS = 'cases', 'equal', 'found', 'failures', 'seconds'


def planted(lab, options):
    "Cases that fail on purpose: a test of the counting."
    from trust_base import Case
    from trust_patches import at_call
    def copy(place): shutil.copytree(lab.base/'reference-1', place.folder)
    def stray(place):
        copy(place)
        (place.folder/'.x.tmp').touch()
        place.check_resumed()
    def changed(place):
        copy(place)
        with open(place.folder/'hidden_anchor_shard_000003.pt', 'r+b') as f: f.write(b'x')
        place.check_resumed(resume_check='size')
    def hangs(place): place.build(lambda: time.sleep(60)).wait(1)
    def falls(place):
        child = place.build(at_call(20, lambda: 1 / 0))
        child.wait()
        child.line()
    return [Case(f'planted: {run.__name__}', run) for run in (stray, changed, hangs, falls)]


def parts():
    "Name → a function of the lab and the options that gives cases."
    import trust_damage
    import trust_many
    import trust_places
    import trust_stops
    return dict(kills=trust_stops.kills, rivals=trust_many.rivals, processes=trust_many.processes,
                disks=trust_places.disks, readonly=trust_places.readonly, gone=trust_places.gone,
                signals=trust_stops.signals, pickles=trust_damage.pickles, flips=trust_damage.flips, planted=planted)


class Counts:
    "Outcomes by kind of case."
    def __init__(self):
        self.rows, self.failed, self.begun = {}, [], time.monotonic()
        self.shown, self.done, self.planned, self.part = self.begun, 0, 0, ''

    def begin(self, part, cases):
        "Say from now on how far a part is."
        self.part, self.planned, self.done = part, len(cases), 0
        return cases

    def add(self, number, kind, seen, why, seconds):
        row = self.rows.setdefault(kind, collections.Counter())
        row['cases'] += 1
        row['failures'] += 'failure' in seen
        row['seconds'] += seconds
        for what in seen - {'failure'}: row[what] += 1
        if why: self.failed.append(f'{kind}, case {number}: {why}')
        if why: print(self.failed[-1], file=sys.stderr, flush=True)
        self.done += 1
        if time.monotonic() - self.shown < 60: return
        print(f'{self.part}: {self.done} of {self.planned} cases', file=sys.stderr, flush=True)
        self.shown = time.monotonic()

    def table(self):
        "A line for each kind, and what else was seen of it."
        lines = [f'{"what":44}' + ''.join(f'{name:>10}' for name in COLUMNS)]
        for kind, row in self.rows.items():
            more = ', '.join(f'{what} {n}' for what, n in sorted(row.items()) if what not in COLUMNS)
            lines.append(f'{kind:44}' + ''.join(f'{row[name]:>10,.0f}' for name in COLUMNS) + f'   {more}'.rstrip())
        return '\n'.join(lines)


def parse(argv, names):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', metavar='NAME', choices=names, default=names[:-1], help=', '.join(names))
    parser.add_argument('--kills', type=int, default=100, help='builds that are killed; other parts have a share of it')
    parser.add_argument('--flips', type=int, default=1000, help='bits that are flipped')
    parser.add_argument('--seed', type=int, default=7)
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='cases at once')
    return parser.parse_args(argv)


def main(argv=None):
    every = parts()
    options, counts = parse(argv, list(every)), Counts()
    from trust_base import Lab, spread
    from trust_patches import warm
    warm()
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None) as base:
        lab = Lab(base, options.seed)
        for seed in (1, 2): lab.reference(seed)
        for name in options.only:
            spread(lab, counts.begin(name, list(every[name](lab, options))), options.workers, counts.add)
    print(counts.table(), *counts.failed, f'seed {options.seed}, {time.monotonic() - counts.begun:.0f} s', sep='\n')
    return int(bool(counts.failed))


if __name__ == '__main__': sys.exit(main())
