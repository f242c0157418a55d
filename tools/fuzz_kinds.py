"""Every kind of file that a build opens, for fuzz.py: those of fuzz_teachers.py and fuzz_data.py; here those of caches,
the prompts file, and the words of the command line."""
import hashlib
import json
import os
from dataclasses import replace

import fuzz_mutations as change
import numpy as np
import torch
from fuzz_base import Kind, digest, in_file, kept
from fuzz_data import DATA, small_frames, without_index, write_dataset
from fuzz_teachers import DIMS, TEACHERS, VOCABULARY, Bos

from anchor_cache.caches import (
    COMPLETE,
    MANIFEST,
    Cache,
    complete,
    completed,
    missing_shards,
    open_cache,
    store_shard,
)
from anchor_cache.command_line import parse_build
from anchor_cache.config import BuildConfig, UserError
from anchor_cache.data.mixtures import find_mixture, open_frames, weighted_quotas
from anchor_cache.data.splits import parse_split
from anchor_cache.logs import KeptRecords, capture_logs
from anchor_cache.manifests import SELF, signed_bytes
from anchor_cache.planning import make_manifest
from anchor_cache.shards import ShardBuilder, read_shard, read_sidecar, shard_path
from anchor_cache.stores import LocalStore
from anchor_cache.teachers import prismatic_teacher
from anchor_cache.teachers.native import native_source
from anchor_cache.teachers.prompts import fill, read_templates
from anchor_cache.teachers.random_models import write_byte_tokenizer, write_random_run


# Caches
def small_shard():
    "A shard of two records, one tower."
    builder = ShardBuilder(2, -2, 'mean_image_tokens', 'float16', 'teacher.pt', 'train')
    ids, mask = torch.arange(4), torch.tensor([False] + [True] * 4 + [False] * 3)
    values = torch.arange(2 * 56.) / 100
    builder.add([ids, ids + 1], [mask, mask], values[:96].view(2, 3, 4, 4), values[96:].view(2, 8))
    return builder.shard()


SAMPLES = [dict(dataset='libero_90', episode=0, step=k, instruction='open the drawer', prompt_template='{instruction}')
           for k in range(2)]


def small_cache(folder, manifest=None, order=range(2)):
    "A complete cache of small shards; what a build that resumes it knows of it."
    asked = manifest or dict(format='anchor_cache', choices=dict(num_samples=2, seed=7), shards=[2])
    cache = Cache(LocalStore(folder/'cache'), asked, list(order))
    for number in open_cache(cache): store_shard(cache, number, small_shard(), SAMPLES)
    complete(cache)
    cache.close()
    return Cache(LocalStore(folder/'cache'), asked, list(order))


def shard(folder):
    "A shard; its sidecar holds the sha256 of its bytes."
    small_cache(folder)
    path = shard_path(folder/'cache', 0)
    return in_file(path, lambda: (digest(read_shard(path)), hashlib.sha256(path.read_bytes()).hexdigest()))


def sidecar(folder):
    "The sidecar of a shard; a shard without a good one is made again."
    cache = small_cache(folder)
    path = shard_path(folder/'cache', 0, '.json')
    def read():
        cache.known.clear()
        if missing_shards(cache): raise UserError('made again')
        return read_sidecar(cache.store, 0), None
    return in_file(path, read)


def complete_mark(folder):
    "The mark of a complete cache; one that is not what manifest and sidecars give is written again."
    cache = small_cache(folder)
    path = folder/'cache'/COMPLETE
    def read():
        if completed(cache) is None: raise UserError('written again')
        return path.read_bytes(), None
    return in_file(path, read)


def meaning(manifest):
    "A manifest without its hash and the two texts that say how teacher and dataset were spelled, not which they are."
    for part, name in (('teacher', 'name'), ('choices', 'dataset')):
        if isinstance(manifest.get(part), dict): manifest[part].pop(name, None)
    return {k: v for k, v in manifest.items() if k != SELF}


def manifest(folder):
    "The manifest of a cache, against the one that the same build asks for."
    run = write_random_run(folder/'run', 'siglip-224px+7b', DIMS, VOCABULARY)
    write_byte_tokenizer(folder/'tokenizer')
    source = replace(native_source(str(run)), name='teacher.pt')
    opened = prismatic_teacher.open_prismatic(source, Bos(), folder/'tokenizer')
    frames, plan = small_frames(folder), np.arange(4)
    config = BuildConfig(teacher_checkpoint=str(run), num_samples=4, shard_size=2, output_dir=str(folder/'cache'))
    asked = make_manifest(config, frames, plan, opened, [opened.prompt], torch.device('cpu'), 'float32')
    cache, path = small_cache(folder, asked, plan.tolist()), folder/'cache'/MANIFEST
    def read():
        notes = KeptRecords()
        with capture_logs(notes):
            cache.check()
            if missing_shards(cache): raise UserError('made again')
        same = meaning(json.loads(path.read_bytes())) == meaning(json.loads(json.dumps(asked)))
        return same, [r.getMessage() for r in notes.records]  # what the log says of a difference counts as noticed
    return in_file(path, read)


def prompts(folder):
    "A prompts file."
    path = folder/'prompts.txt'
    path.write_text('# two\nIn: {instruction}?\\nOut:\n\n{{A}} robot: {instruction}\n')
    def read():
        templates = read_templates(str(path))
        return digest([fill(t, 'Open') for t in templates]), kept(folder, dict(prompt_templates=templates))
    return in_file(path, read)


# Words of the command line
def words(original, read):
    "Words, as Python decodes them from a command line; the manifest holds them."
    def open_kind(folder):
        def run(data): return digest(read(folder, os.fsdecode(data))), data
        return original, run
    return open_kind


def split_parts(folder, text): return parse_split(text, dict(train=[3, 2], val=[4], test=[0, 1]))


def mixture(folder, text):
    chosen = find_mixture(text)
    return chosen and (list(chosen), weighted_quotas([50, 7, 9][:len(chosen)], [*chosen.values()][:3], 16))


def named(folder, text):
    if not (folder/'rlds').exists(): write_dataset(folder)
    without_index()
    frames = open_frames(str(folder/'rlds'), text)
    return kept(folder, frames.identity()), frames.plan(2, 7, 4)


def flags(folder, text):
    try: return parse_build(text.split('\n'))
    except SystemExit as e: raise UserError('asked for help') from e


SPLIT = ('train', 'val', 'test', 'all', '[', ']', ':', '%', 'shard', '+', '-', '0', '1', '2', '10', '99', '100', '200',
         '.5', 'nan', 'inf', '1e3', '_', ' ', '9' * 5000, '٣', '\0', '\udcff')
DATASET = ('libero_90', 'bridge', 'rtx', 'kuka', '=', '=', ',', ',', ':', ':1.0.0', '1', '0', '-1', '1e308', '1e-308',
           'nan', 'inf', '0.5', '9' * 400, '..', '/', '*', '[', '~', 'x' * 300, '\0', '\udcff', ' ')
FLAGS = ('--dataset', '--split', '--seed', '--num_samples', '--dtype', '--per_task', '--teacher_checkpoint', '-', '=',
         '--output_dir', '--pooling', '--hidden_layer', '--data_root_dir', '--', '\n', '\n', '\n', '\n', 'x', '1', '-1',
         'true', 'fp16', '9' * 5000, '%s', '\0', '\udcff', '://', '~', '')
WORDS = dict(
    split=Kind(words(b'train[:50%]+train[50%:]', split_parts), change.words_of(*SPLIT)),
    mixture=Kind(words(b'libero_90=1,kuka=0.5', mixture), change.words_of(*DATASET)),
    dataset=Kind(words(b'libero_90:1.0.0=1', named), change.words_of(*DATASET)),
    flags=Kind(words(b'--teacher_checkpoint=x\n--seed=3\n--dtype\nfp16', flags), change.words_of(*FLAGS)))

def mutate_signed(rng, data):
    "A change to the values in a signed file, which is then signed again: nothing but its meaning tells."
    try:
        value = json.loads(change.mutate_json(rng, data))
        return signed_bytes({k: v for k, v in value.items() if k != SELF}) if isinstance(value, dict) else data
    except (ValueError, RecursionError): return data


SIGNED = 'who signs it again may say other things of the records: complete.json and verify tell'
CACHES = {
    'shard': Kind(shard),
    'shard pickle': Kind(shard, change.mutate_zip),
    'sidecar': Kind(sidecar, change.mutate_json),
    'sidecar, signed again': Kind(sidecar, mutate_signed, explained=SIGNED),
    'manifest': Kind(manifest, change.mutate_json),
    'manifest, signed again': Kind(manifest, mutate_signed),
    'complete.json': Kind(complete_mark, change.mutate_json),
    'prompts': Kind(prompts),
}
KINDS = {**TEACHERS, **DATA, **CACHES, **WORDS}
