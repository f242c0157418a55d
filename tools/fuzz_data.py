"""The files of datasets, for fuzz.py: records, descriptions, the kept index, images, and a plan of frames."""
import hashlib
import io
import json
import os
import shutil
import zlib

import fuzz_mutations as change
import numpy as np
from fuzz_base import Kind, digest, in_file, kept, message

from anchor_cache.config import demo_data
from anchor_cache.data.plans import plan_sha256, read_plan
from anchor_cache.data.rlds import RldsFrames
from anchor_cache.data.tfrecord import masked_crc


def example(features):
    "A tf.train.Example of byte features."
    entries = [message(1, name.encode()) + message(2, message(1, b''.join(message(1, v) for v in values)))
               for name, values in features.items()]
    return message(1, b''.join(message(1, e) for e in entries))


def framed(record):
    "A record of a TFRecord file: its length and CRC, its bytes and theirs."
    length = len(record).to_bytes(8, 'little')
    return b''.join((length, masked_crc(length).to_bytes(4, 'little'), record,
                     masked_crc(record).to_bytes(4, 'little')))


def picture(format, size=16):
    "A small image in a format."
    from PIL import Image
    out, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(out, format)
    return out.getvalue()


def write_dataset(folder):
    "A dataset of two short episodes under the demo's description, in one file; the root."
    version = folder/'rlds'/'libero_90'/'1.0.0'
    version.mkdir(parents=True)
    shutil.copy(demo_data('rlds', 'libero_90', '1.0.0')/'features.json', version)
    info = json.loads((demo_data('rlds', 'libero_90', '1.0.0')/'dataset_info.json').read_text())
    info['splits'][0].update(shardLengths=['2'])
    (version/'dataset_info.json').write_text(json.dumps(info, indent=2))
    def episode(k, steps): return example({
        'steps/observation/image': [picture('JPEG', k + n + 8) for n in range(steps)],
        'steps/language_instruction': [f'open drawer {k}'.encode()] * steps})
    path = version/'libero_90-train.tfrecord-00000-of-00001'
    path.write_bytes(framed(episode(0, 3)) + framed(episode(1, 2)))
    os.utime(path, (1, 1))  # is in the kept index
    return folder/'rlds', version, path


def without_index(): os.environ['ANCHOR_CACHE_HOME'] = '/dev/null/none'


def small_frames(folder):
    without_index()
    return RldsFrames(str(write_dataset(folder)[0]), 'libero_90')


def frames_of(frames, folder):
    "What is read of every frame, and what the manifest says of the dataset."
    rows = [(frames.where(i), frames.instruction(i), frames.encoded(i) if frames.stored == 'encoded' else
             frames.pixels(i), frames.own_mask(i)) for i in range(len(frames))]
    return digest(rows), kept(folder, frames.identity())


def dataset(name=None, indexed=False):
    "A file of a dataset, or the kept index of one."
    def open_kind(folder):
        root, version, path = write_dataset(folder)
        home = str(folder/'home') if indexed else '/dev/null/none'
        def read():
            os.environ['ANCHOR_CACHE_HOME'] = home
            return frames_of(RldsFrames(str(root), 'libero_90'), folder)
        if indexed: read()
        return in_file(next((folder/'home'/'frames').iterdir()) if indexed else version/name if name else path, read)
    return open_kind


def mutate_tfrecord(rng, data):
    "A changed TFRecord file; in half of the cases its records have the CRCs of their changed bytes."
    data = change.mutate_bytes(rng, data)
    if rng.random() < .5: return data
    out, at = b'', 0
    while at + 16 <= len(data) and (end := at + 12 + int.from_bytes(data[at:at + 8], 'little')) + 4 <= len(data):
        out, at = out + framed(data[at + 12:end]), end + 4
    return out + data[at:]


def mutate_index(rng, data):
    "A changed index; in four of five cases with the checksum of its changed bytes."
    head, digest_, body = data.split(b'\n', 2)
    if rng.random() < .2: return change.mutate_bytes(rng, data)
    body = change.mutate_bytes(rng, body)
    return b'\n'.join([head, hashlib.sha256(body).hexdigest().encode(), body])


def plan(folder):
    "A plan as CSV."
    frames, path = small_frames(folder), folder/'plan.csv'
    path.write_text('dataset,episode,step,instruction\nlibero_90,0,1,"open, drawer"\nlibero_90,1,0,\nlibero_90,0,2,x\n')
    def read():
        chosen = read_plan(str(path), frames)
        return digest(chosen), plan_sha256(chosen)
    return in_file(path, read)


def image(format):
    "The bytes of an encoded image in a record, whose CRC is part of the dataset's hash."
    def open_kind(folder):
        frames, given = small_frames(folder), []
        class Given(RldsFrames):
            def encoded(self, i): return given[-1]
        frames.__class__ = Given
        def read(data):
            given[:] = [data]
            return digest(frames.image(0, 32)), zlib.crc32(data)
        return picture(format), read
    return open_kind


INDEX = 'most of these have a right checksum over other bytes, which damage does not make: who can write to the ' \
        "user's own cache folder can write what the user can"
DATA = {
    'tfrecord': Kind(dataset(), mutate_tfrecord),
    'kept index': Kind(dataset(indexed=True), mutate_index, explained=INDEX),
    'dataset info': Kind(dataset('dataset_info.json'), change.mutate_json),
    'features': Kind(dataset('features.json'), change.mutate_json),
    'plan': Kind(plan),
    'jpeg': Kind(image('JPEG')),
    'png': Kind(image('PNG')),
}
