"""How fast frames are found and read, in one run on one machine, beside what TensorFlow and TFDS do there.

    python tools/bench_data.py ROOT NAME [--copies 40] [--samples 1000]

The dataset is copied `--copies` times over into a temporary folder, so that a small one measures like a large one.
Ratios are what to compare between machines.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from anchor_cache.data.datasets import find_dataset
from anchor_cache.data.frame_index import index_frames
from anchor_cache.data.pixels import decoded, make_decoder, make_resizer, tensorflow_resizer
from anchor_cache.data.rlds import RldsFrames
from anchor_cache.data.sampling import sample_plan
from anchor_cache.data.splits import split_files
from anchor_cache.data.tf import import_tensorflow

CORES = len(os.sched_getaffinity(0))


def enlarge(root, name, copies, target):
    "A dataset with each file of the train split `copies` times."
    folder = find_dataset(root, name)
    paths, counts = split_files(folder, 'train')
    out = target/folder.parent.name/folder.name
    out.mkdir(parents=True)
    shutil.copy(folder/'features.json', out)
    info = json.loads((folder/'dataset_info.json').read_text())
    total = len(paths) * copies
    for i in range(total): shutil.copy(paths[i % len(paths)], out/f'bench-train.tfrecord-{i:05}-of-{total:05}')
    train = next(s for s in info['splits'] if s['name'] == 'train')
    train.update(shardLengths=[str(counts[i % len(paths)]) for i in range(total)],
                 filepathTemplate='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}')
    (out/'dataset_info.json').write_text(json.dumps(dict(info, name='bench', splits=[train])))
    return target


def timed(work):
    "Seconds, and what `work` gives."
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


MEMORY = '''
import re, sys
from concurrent.futures import ThreadPoolExecutor
from anchor_cache.data.rlds import RldsFrames
from anchor_cache.data.sampling import sample_plan
root, name, samples, window = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
frames = RldsFrames(root, name)
plan = sample_plan(len(frames), samples, window=window)
frames.image(0, 224)
with ThreadPoolExecutor(2) as pool:
    for _ in pool.map(lambda i: frames.image(i, 224), plan.tolist()): pass
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
'''


def peak(root, name, samples, window):
    "Largest size, in MB, of a process that reads `samples` frames."
    command = [sys.executable, '-c', MEMORY, str(root), name, str(samples), str(window)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tfds_everything(folder):
    "Read and decode every step with TFDS, as a plain loop over its dataset does; the number of steps."
    tf = import_tensorflow()
    import tensorflow_datasets as tfds
    episodes = tfds.builder_from_directory(str(folder)).as_dataset(split='train', shuffle_files=False)
    steps = episodes.flat_map(lambda e: e['steps']).map(lambda s: s['observation']['image'])
    return int(steps.reduce(np.int64(0), lambda n, image: n + tf.cast(tf.shape(image)[0] > 0, tf.int64)))


def tensorflow_alone(encoded):
    "Decode and resize of images that are in memory, by tf.data on all cores."
    tf = import_tensorflow()

    def decode(e):
        image = tf.io.decode_image(e, channels=3, expand_animations=False)
        image = tf.image.resize(image, (224, 224), method='lanczos3', antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    for _ in tf.data.Dataset.from_tensor_slices(encoded).map(decode, num_parallel_calls=CORES): pass


def best_of_three(work):
    "The fewest seconds that `work` takes."
    return min(timed(work)[0] for _ in range(3))


def chosen_frames(frames, plan):
    "Seconds to read the planned frames with this package, and with TensorFlow from memory; three rounds side by side."
    def ours():
        with ThreadPoolExecutor(CORES) as pool: return sum(1 for _ in pool.map(lambda i: frames.image(i, 224), plan))

    make_decoder(224)(frames.encoded(0))
    encoded = [frames.encoded(i) for i in plan]
    rounds = [(timed(ours)[0], timed(lambda: tensorflow_alone(encoded))[0]) for _ in range(3)]
    return tuple(min(r[k] for r in rounds) for k in (0, 1))


def processor_milliseconds(ours, theirs, items):
    "Milliseconds of processor time an item takes by two functions, in turns: the medians."
    rounds = []
    for item in items:
        times = []
        for work in (ours, theirs):
            start = time.process_time()
            work(item)
            times.append((time.process_time() - start) * 1000)
        rounds.append(times)
    return np.median(rounds, axis=0).tolist()


def decode_and_resize_alone(frames, plan):
    "Milliseconds to decode a frame, and to resize it, by this package and by TensorFlow."
    def by_tensorflow(encoded): return decode(encoded, channels=3, expand_animations=False).numpy()
    decode, encoded = import_tensorflow().io.decode_image, [frames.encoded(i) for i in plan[:200]]
    for resize in (make_resizer(224), tensorflow_resizer(224)): resize(decoded(encoded[0]))
    return (processor_milliseconds(decoded, by_tensorflow, encoded),
            processor_milliseconds(make_resizer(224), tensorflow_resizer(224), [decoded(e) for e in encoded]))


def measure(options, target):
    "Print every figure, each with what it is compared with."
    import_seconds, _ = timed(import_tensorflow)
    root, name = enlarge(options.root, options.name, options.copies, target), options.name.partition(':')[0]
    folder = find_dataset(root, name)
    paths, counts = split_files(folder, 'train')
    gigabytes = sum(p.stat().st_size for p in paths) / 1e9
    for p in paths: p.read_bytes()  # into the page cache
    keys = dict(image_key='steps/observation/image', text_key='steps/language_instruction')
    walk = best_of_three(lambda: index_frames(paths, counts, **keys))
    RldsFrames(root, name)  # keeps the index
    first, frames = timed(lambda: (f := RldsFrames(root, name), f.image(len(f) // 2, 224))[0])
    opened, _ = timed(lambda: RldsFrames(root, name))
    plan = sample_plan(len(frames), min(options.samples, len(frames))).tolist()
    mine, alone = chosen_frames(frames, plan)
    (decode, slow_decode), (resize, slow_resize) = decode_and_resize_alone(frames, plan)
    everything, steps = timed(lambda: tfds_everything(folder))
    print(f'{CORES} cores, {gigabytes:.2f} GB, {len(frames):,} frames; '
          f'TensorFlow takes {import_seconds:.1f} s to import, which is in none of these')
    print(f'index            {walk / gigabytes:6.2f} s/GB, {gigabytes * 1000 / walk:.0f} MB/s; '
          f'opened from the kept one in {opened:.3f} s')
    print(f'first frame      {first:6.2f} s from a kept index')
    print(f'{len(plan):,} frames     {mine:6.2f} s, {len(plan) / mine:.0f} frames/s: '
          f'{alone / mine:.0%} of the speed of decode and resize by TensorFlow alone')
    print(f'decode alone     {decode:6.2f} ms of a processor for a frame, by TensorFlow {slow_decode:.2f}: '
          f'{slow_decode / decode:.1f} times as long')
    print(f'resize alone     {resize:6.2f} ms, by TensorFlow {slow_resize:.2f}: '
          f'{slow_resize / resize:.1f} times as long')
    print(f'all by TFDS      {everything:6.2f} s to read and decode all {steps:,}, without resizing: '
          f'{everything / mine:.1f} times as long as the chosen ones')
    small, one, wide = (peak(*which, 100, window) for which, window in
                        (((options.root, name), 100_000), ((root, name), 1), ((root, name), 100_000)))
    print(f'peak memory      {small} MB for 100 frames of the small set; '
          f'of the large one {one} MB with a window of 1, {wide} MB with 100,000')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root')
    parser.add_argument('name')
    parser.add_argument('--copies', type=int, default=40)
    parser.add_argument('--samples', type=int, default=1000)
    with tempfile.TemporaryDirectory(prefix='anchor_cache_bench_') as folder:
        os.environ['ANCHOR_CACHE_HOME'] = f'{folder}/home'
        measure(parser.parse_args(), Path(folder)/'rlds')


if __name__ == '__main__':
    main()
