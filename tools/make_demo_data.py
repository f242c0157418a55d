"""Cut the demo's frames out of an RLDS dataset: whole episodes, byte for byte, the smallest that fit.

    python tools/make_demo_data.py ../shared/data/libero_90/1.0.0 anchor_cache/demo_data/rlds/libero_90/1.0.0
"""
import json
import shutil
import sys
from pathlib import Path

from anchor_cache.data.tfrecord import records

LIMIT, FILES = 4_000_000, 2  # bytes of frames that ship with the package; files they are spread over


def framed(path):
    "The records of one TFRecord file with their frames: length and CRC before, CRC behind."
    data = path.read_bytes()
    return [data[start - 12:end + 4] for start, end, _ in records(data, str(path))]


def main(source, target):
    source, target = Path(source), Path(target)
    episodes = [r for path in sorted(source.glob('*-train.tfrecord-*')) for r in framed(path)]
    kept, used = set(), 0
    for i in sorted(range(len(episodes)), key=lambda i: len(episodes[i])):
        if used + len(episodes[i]) > LIMIT: break
        kept.add(i)
        used += len(episodes[i])
    kept = [episodes[i] for i in sorted(kept)]

    info = json.loads((source / 'dataset_info.json').read_text())
    split, per_file = info['splits'][0], -(-len(kept) // FILES)
    parts = [kept[i:i + per_file] for i in range(0, len(kept), per_file)]
    split['shardLengths'] = [str(len(p)) for p in parts]
    split['numBytes'] = str(sum(len(r) - 16 for r in kept))
    target.mkdir(parents=True, exist_ok=True)
    for n, part in enumerate(parts):
        name = f'{info["name"]}-{split["name"]}.tfrecord-{n:05d}-of-{len(parts):05d}'
        (target / name).write_bytes(b''.join(part))
    (target / 'dataset_info.json').write_text(json.dumps(info, indent=2) + '\n')
    shutil.copyfile(source / 'features.json', target / 'features.json')
    print(f'{len(kept)} episodes, {used:,} bytes in {target}')


if __name__ == '__main__':
    main(*sys.argv[1:])
