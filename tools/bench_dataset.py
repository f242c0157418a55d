"""How fast a cache opens and its records are read, and what that takes of memory, beside loading every shard.

    python tools/bench_dataset.py [--records 10000] [--samples 2000] [--workers 8] [--folder CACHE]
    python tools/bench_dataset.py --sizes    what a record takes in schema 1 and 2, and how fast it is read there

A cache with the pixels of two towers and features of 4,096 in float16, 0.61 MB a record, is written to a temporary
folder, or to CACHE, where it stays for the next time. Every figure is of a process of its own. Rates are by the time of
the processor. Memory is what all processes together hold in RAM (anonymous PSS: a page that several share counts once).
A share above 100 % means that a record goes to memory which the processor's cache still holds.

With --sizes caches of the same shapes are written in schema 1, and in schema 2 with uint8 pixels and with none; their
prompts are 90 texts as long as those of LIBERO-90. Exit status 1: a record with uint8 pixels is not 3.8 times smaller
than in schema 1, or 10,000 with none take 90 MB or more, sidecars counted.
"""
import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from anchor_cache.caches import Cache, complete, open_cache, store_shard
from anchor_cache.dataset import AnchorDataset
from anchor_cache.layout import TokenLayout, image_token_mask
from anchor_cache.manifests import frames_sha256
from anchor_cache.shards import Schema2Builder, ShardBuilder
from anchor_cache.stores import LocalStore

SHARD, PATCHES, DIM, SIZE = 2048, 256, 4096, 224
LAYERS = 33  # hidden states of a Llama-2 7B: its input embeddings, and what each of 32 layers gives
TEMPLATE = 'In: What action should the robot take to {instruction}?\nOut:'


def made(first, count):
    "A shard of made-up records: prompts of 20 to 39 tokens."
    builder = ShardBuilder(count, -2, 'mean_image_tokens', 'float16', 'step.pt', 'train')
    torch.manual_seed(first)
    noise = torch.rand(2, 128, 3, SIZE, SIZE).half()
    for start in range(0, count, 128):
        n = min(128, count - start)
        seqs = [20 + (first + start + i) % 20 for i in range(n)]
        builder.add([torch.arange(s) for s in seqs], [image_token_mask(s, TokenLayout(PATCHES)) for s in seqs],
                    dict(dino=noise[0, :n], siglip=noise[1, :n]), torch.rand(n, DIM))
        noise = noise.roll(1, 1)
    return builder.shard()


def samples_of(first, count):
    "Which frames the records of a shard are: 90 instructions, in the order of a shuffled plan."
    return [dict(dataset='libero_90', episode=n // 150, step=n % 150, frame=n, prompt_template=TEMPLATE,
                 instruction=f'put the black bowl {n * 37 % 90} in the bottom drawer of the cabinet')
            for n in range(first, first + count)]


TRANSFORM = dict(name='resize-naive', size=SIZE, towers=dict(
    dino=dict(mean=[.484375, .455078125, .40625], std=[.228515625, .2236328125, .224609375], crop=1.0),
    siglip=dict(mean=[.5] * 3, std=[.5] * 3, crop=1.0)))
TARGET = dict(name='L31.mean_image_tokens', layer=31, pooling='mean_image_tokens', shape=[DIM])


def made_2(first, count, pixels):
    "A shard of schema 2 of made-up records, with `uint8` pixels or `none`."
    builder = Schema2Builder(count, [TARGET], 'float16', pixels, TRANSFORM, 'step.pt', 'train')
    torch.manual_seed(first)
    for start in range(0, count, 128):
        n = min(128, count - start)
        prompts = [(first + start + i) * 37 % 90 for i in range(n)]
        ids = [torch.arange(25 + p % 21) + 1000 * p for p in prompts]  # 25 to 45 tokens
        images = torch.randint(0, 256, (n, SIZE, SIZE, 3), dtype=torch.uint8) if pixels == 'uint8' else None
        builder.add(ids, [image_token_mask(len(i), TokenLayout(PATCHES)) for i in ids], images,
                    {TARGET['name']: torch.rand(n, DIM)}, samples_of(first + start, n))
    return builder.shard()


def write_cache(folder, records, pixels=None):
    "Write a cache of made-up records, as a build does: of schema 1, or with some kind of pixels of schema 2."
    counts = [min(SHARD, records - start) for start in range(0, records, SHARD)]
    choices = dict(num_samples=records, shard_size=SHARD, dtype='float16', split='train')
    manifest = dict(format='anchor_cache', prompt_templates=[TEMPLATE], plan_sha256=frames_sha256(range(records)),
                    shards=counts, teacher=dict(name='step.pt', num_patches=PATCHES, hidden_dim=DIM))
    if pixels is None: manifest['choices'] = choices | dict(hidden_layer=-2, pooling='mean_image_tokens')
    else:
        manifest |= dict(schema_version=2, targets=[TARGET], image_transform=TRANSFORM,
                         choices=choices | dict(targets=[TARGET['name']], pixels=pixels))
    cache = Cache(LocalStore(folder), manifest, range(records))
    for k in open_cache(cache):
        shard = made(SHARD * k, counts[k]) if pixels is None else made_2(SHARD * k, counts[k], pixels)
        store_shard(cache, k, shard, samples_of(SHARD * k, counts[k]))
    complete(cache)
    cache.hold.close()


def shards(folder): return sorted(Path(folder).glob('*.pt'))


def warm(folder):
    "Read every shard into the page cache."
    buffer = bytearray(1 << 24)
    for path in shards(folder):
        with open(path, 'rb', buffering=0) as f:
            while f.readinto(buffer): pass


def cool(folder):
    "Ask the system to drop the shards from the page cache."
    for path in shards(folder):
        with open(path, 'rb') as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work, clock=time.perf_counter):
    "Seconds, and what `work` gives."
    start = clock()
    value = work()
    return clock() - start, value


def busy(work):
    "Seconds of the processor: others who use the machine slow a copy out of the page cache down, and this hardly."
    return timed(work, time.process_time)[0]


def memory(pids):
    "Anonymous memory of some processes in MB: what they hold; files that are mapped, as libraries are, left out."
    texts = [Path(f'/proc/{pid}/smaps_rollup').read_text() for pid in pids]
    lines = [line for text in texts for line in text.splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith('Pss_Anon:')) / 1024


def in_shared_memory():
    "MB of files in /dev/shm, in which batches travel between processes; their names are gone, so no listing has them."
    about = os.statvfs('/dev/shm')
    return (about.f_blocks - about.f_bfree) * about.f_frsize / 2**20


def numbers(count, samples, seed=0): return random.Random(seed).choices(range(count), k=samples)


def stacked(records):
    "A batch: what has one shape in every record, stacked."
    batch = {tower: torch.stack([r['model_inputs']['pixel_values'][tower] for r in records])
             for tower in ('dino', 'siglip')}
    return batch | dict(targets=torch.stack([r['target_features'] for r in records]))


def measure_open(folder, options):
    "Seconds to open the cache, and from there to the first batch of 16; MB that the open dataset holds."
    before = memory([os.getpid()])
    opened, anchors = timed(lambda: AnchorDataset(folder))
    held = memory([os.getpid()]) - before
    return opened, timed(lambda: stacked(anchors.__getitems__(numbers(len(anchors), 16))))[0], held


def measure_cold(folder, options):
    "The same with shards that are on the disk alone, as far as the system heeds the wish."
    cool(folder)
    return measure_open(folder, options)


def calls(anchors, which):
    "For each record, what is read of it: the handle of its shard, and first byte and bytes of each field."
    c, planned = anchors._contents, []
    for n in which:
        k = next(k for k, end in enumerate(anchors._ends) if n < end)
        row = n - anchors._ends[k] + c.counts[k]
        planned.append((anchors._files[k].handle, [
            (column.begins[row], column.dtype.itemsize * torch.Size(column.shape_of(row)).numel())
            for column in c.columns[k].values()]))
    return planned


def measure_rate(folder, options):
    "GB/s of the system's copy alone, to memory and to one buffer; the shares of both that records reach."
    warm(folder)
    anchors = AnchorDataset(folder)
    which = numbers(len(anchors), options.samples)
    planned = calls(anchors, which)
    size = sum(n for _, fields in planned for _, n in fields)
    largest = max(sum(n for _, n in fields) for _, fields in planned)

    def into(rooms):
        "The calls of each record, into one of some buffers after the other."
        return [(handle, [(begin, (room[before:before + n],)) for (begin, n), before in zip(
            fields, itertools.accumulate((n for _, n in fields), initial=0))])
            for room, (handle, fields) in zip(itertools.cycle(rooms), planned)]

    def copies(plan):
        for handle, fields in plan:
            for begin, target in fields: os.preadv(handle, target, begin)

    def records():
        for n in which: anchors[n]

    def batches(each):
        for start in range(0, len(which), each): anchors.__getitems__(which[start:start + each])

    rooms = [memoryview(bytearray(largest)) for _ in range(256)]  # more than a processor's cache holds
    apart, one = into(rooms), into(rooms[:1])
    works = lambda: copies(apart), lambda: copies(one), records, lambda: batches(16), lambda: batches(32)
    stacked(anchors.__getitems__(range(32)))  # as in training; malloc keeps freed memory once a large block was freed
    for work in works: work()
    rounds = [[busy(work) for work in works] for _ in range(7)]
    rates = [statistics.median(size / row[i] / 1e9 for row in rounds) for i in (0, 1)]
    return rates + [statistics.median(row[i] / row[k] for row in rounds) for k in (2, 3, 4) for i in (0, 1)]


def measure_map(folder, options):
    "Seconds to open one shard memory-mapped by `torch.load`, and GB/s of random records copied out of it."
    path = str(shards(folder)[0])
    opened, shard = timed(lambda: torch.load(path, weights_only=True, mmap=True))
    records = shard['records']
    tensors = [list(dataset_tensors(record)) for record in records]
    which = numbers(len(records), options.samples)
    size = sum(t.nbytes for n in which for t in tensors[n])

    def work():
        for n in which: [t.clone() for t in tensors[n]]

    return opened, statistics.median(size / busy(work) / 1e9 for _ in range(5))


def dataset_tensors(record):
    "The tensors of a record."
    inputs = dict(record['model_inputs'])
    yield from inputs.pop('pixel_values').values()
    yield from inputs.values()
    yield record['target_features']


def measure_load(folder, options):
    "Seconds to load every shard into memory, seconds to a first batch from there, and MB of the process."
    loaded, records = timed(lambda: [r for path in shards(folder)
                                     for r in torch.load(path, map_location='cpu', weights_only=True)['records']])
    batch, _ = timed(lambda: stacked([records[n] for n in numbers(len(records), 16)]))
    return loaded, batch, memory([os.getpid()])


class Nothing(torch.utils.data.Dataset):
    "A dataset whose batches are as large, and which holds nothing."
    def __init__(self, length): self.length = length
    def __len__(self): return self.length

    def __getitem__(self, i):
        pixels = {tower: torch.ones(3, SIZE, SIZE, dtype=torch.float16) for tower in ('dino', 'siglip')}
        return dict(model_inputs=dict(pixel_values=pixels), target_features=torch.ones(DIM, dtype=torch.float16))


def measure_workers(folder, options):
    "MB of a process with workers in the middle of an epoch, and of its batches: of a dataset of nothing, and of ours."
    found = []
    for kind in (Nothing, AnchorDataset):
        anchors = kind(options.records) if kind is Nothing else kind(folder)
        before = in_shared_memory()
        loader = torch.utils.data.DataLoader(anchors, batch_size=16, shuffle=True, num_workers=options.workers,
                                             collate_fn=stacked)
        batches = iter(loader)
        for _ in range(min(10 * options.workers, len(loader) // 2)): next(batches)
        time.sleep(3)  # the batches ahead are ready
        found += memory([os.getpid(), *(worker.pid for worker in batches._workers)]), in_shared_memory() - before
        del batches, loader
    return found


def measure_reading(folder, options):
    "Records a second that are read at random, by the time of the processor."
    warm(folder)
    anchors = AnchorDataset(folder)
    which = numbers(len(anchors), options.samples)

    def work():
        for n in which: anchors[n]

    work()
    return [len(which) / statistics.median(busy(work) for _ in range(5))]


def folder_size(folder): return sum(path.stat().st_size for path in folder.iterdir())


def measure_sizes(folder, options):
    "Print what a record takes in each schema, and how fast it is read; whether that is as small as it must be."
    sizes = {}
    for name, pixels, records in (('schema 1', None, 1000), ('uint8', 'uint8', 1000), ('none', 'none', 10_000)):
        write_cache(folder/name, records, pixels)
        sizes[name] = folder_size(folder/name) / records
        sidecars = sum(path.stat().st_size for path in (folder/name).glob('*_*.json')) / records
        rate, = measured('reading', folder/name, options)
        print(f'{name:9} {sizes[name]:9,.0f} bytes a record, {sidecars:,.0f} of them in the sidecar; '
              f'{sizes["schema 1"] / sizes[name]:5.2f} times smaller; {rate:9,.0f} records/s '
              f'({rate * sizes[name] / 1e9:.2f} GB/s)')
    print(f'10,000 records with none take {sizes["none"] / 100:.1f} MB')
    feature, states = DIM * 2, (PATCHES + 30) * DIM * 2  # float16
    print(f'a pooled feature takes {feature:,} bytes; the states of all tokens of a prompt of 30 would take '
          f'{states / 1e6:.1f} MB for one layer, {LAYERS * states / 1e6:.0f} MB for all {LAYERS} hidden states')
    return sizes['schema 1'] >= 3.8 * sizes['uint8'] and sizes['none'] < 9000


def measured(name, folder, options, times=1):
    "What a measurement in new processes gives: the median of several."
    command = [sys.executable, __file__, '--only', name, '--folder', str(folder), '--records', str(options.records),
               '--samples', str(options.samples), '--workers', str(options.workers)]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(times)]
    return [statistics.median(column) for column in zip(*runs)]


def measure(folder, options):
    "Print every figure, each with what it is compared with."
    if not (folder/'complete.json').exists():
        seconds, _ = timed(lambda: write_cache(folder, options.records))
        print(f'written          {seconds:6.1f} s')
    size = sum(path.stat().st_size for path in shards(folder))
    print(f'{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, {options.records:,} records, '
          f'{size / 1e9:.2f} GB in {len(shards(folder))} shards')
    warm(folder)
    opened, first, held = measured('open', folder, options, 5)
    print(f'opened           {opened:6.3f} s; first random batch of 16 after {first:.3f} s; it holds {held:.0f} MB')
    apart, one, *shares = measured('rate', folder, options)
    print(f'copy             {apart:6.2f} GB/s: the same preadv calls from the page cache to memory; {one:.2f} into '
          "one buffer, which stays in the processor's cache")
    for name, share, of_one in zip(('random records', 'batches of 16', 'batches of 32'), shares[::2], shares[1::2]):
        print(f'{name:16} {share:6.0%} of the rate to memory, {of_one:.0%} of that into one buffer')
    mapped, rate = measured('map', folder, options)
    print(f'memory map       {rate:6.2f} GB/s copied out of one shard, which torch.load(mmap=True) opens in '
          f'{mapped:.2f} s')
    base, base_batches, total, batches = measured('workers', folder, options)
    print(f'{options.workers} workers        {total:6.0f} MB held by all processes, {total - base:+.0f} MB over a '
          f'dataset of nothing; and {batches:.0f} MB of batches in /dev/shm, there {base_batches:.0f} MB')
    loaded, first, held = measured('load', folder, options)
    print(f'load all         {loaded:6.1f} s to torch.load every shard, {held:,.0f} MB held by one process; then '
          f'{first:.3f} s to the first batch')
    opened, first, _ = measured('cold', folder, options, 3)
    print(f'from the disk    {first:6.3f} s to the first random batch after the page cache was dropped, opened in '
          f'{opened:.3f} s')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=10_000, help='of the cache (default: 10,000)')
    parser.add_argument('--samples', type=int, default=2000, help='records to read at random (default: 2,000)')
    parser.add_argument('--workers', type=int, default=8,
                        help='of the DataLoader whose memory is measured (default: 8)')
    parser.add_argument('--folder', type=Path, help='where the cache lies, or is made and kept')
    parser.add_argument('--only', help=argparse.SUPPRESS)
    parser.add_argument('--sizes', action='store_true', help='measure what records take, in schema 1 and schema 2')
    options = parser.parse_args()
    if options.sizes:
        with tempfile.TemporaryDirectory(prefix='anchor_cache_bench_') as folder:
            return sys.exit(not measure_sizes(Path(folder), options))
    if options.only: return print(json.dumps(globals()[f'measure_{options.only}'](options.folder, options)))
    if options.folder: return measure(options.folder, options)
    with tempfile.TemporaryDirectory(prefix='anchor_cache_bench_') as folder: measure(Path(folder)/'cache', options)


if __name__ == '__main__':
    main()
