"""Check that the base install reads a cache and trains against it, in the oldest environment that is supported.

    python tools/check_reader.py                  Python 3.10 where there is one, torch 2.2.0, numpy 1.26.4
    python tools/check_reader.py --wheel FILE     check this wheel instead of one built from the checkout
    python tools/check_reader.py --demo FOLDER    read what `anchor-cache demo` left there instead of running it
    python tools/check_reader.py --python python3.13 --torch newest   another Python; the newest torch, without numpy

The running environment needs [build] to run the demo and the package build for the wheel; neither with both options.
The wheel goes without any extra into a temporary environment, where this script runs again as `--inside SHARD`: it
imports each module that training needs, opens a shard, pools the hidden states of a small student, and trains it a few
steps against the cache. Last, a build there must end with the one line that names what to install. On Linux x86-64
PyPI has torch 2.2.0 for CUDA only, with 2.4 GB of libraries; it runs without a GPU. Exit status 1, and one line that
says why, when something is wrong.
"""
import argparse
import importlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check_release import ROOT, build, make_environment, read_metadata, require, run, say, temporary_folder

NEEDED = ('config', 'units', 'logs', 'files', 'schema', 'layout', 'pooling', 'transforms', 'statistics', 'shards',
          'by_frame', 'dataset', 'collation', 'constraint', 'distribution', 'drift', 'craft', 'check', 'retention',
          'verify', 'conformance', 'convert', 'merge', 'sample', 'overview', 'inspection')
RUN_DEMO = 'import sys; from anchor_cache.demo import run_demo; run_demo(sys.argv[1], progress=False)'


def find_python():
    "The command of a Python 3.10, on the path or among pyenv's; the running Python where there is none."
    pyenv = Path(os.environ.get('PYENV_ROOT', '~/.pyenv')).expanduser()
    for command in [shutil.which('python3.10'), *sorted(pyenv.glob('versions/3.10.*/bin/python'))]:
        if command and subprocess.run([command, '-c', 'import ensurepip'], capture_output=True).returncode == 0:
            return str(command)
    return sys.executable


def loaded():
    "Top-level names of the imported modules that are not of the standard library."
    return {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names


def import_modules():
    "Import what training imports: torch, and nothing that torch has not imported itself."
    import torch
    before = loaded()
    for name in NEEDED:
        importlib.import_module(f'anchor_cache.{name}')
        extra = loaded() - before - {'anchor_cache'}
        require(not extra, f'anchor_cache.{name} imports {", ".join(sorted(extra))}, expected torch alone')
    say(f'Python {sys.version.split()[0]}, torch {torch.__version__}: imported {", ".join(NEEDED)}')


def make_student(channels, patch, dim, layout):
    "A small policy of OpenVLA's structure and forward, with an image of `channels` × side × side in its sequence."
    from types import SimpleNamespace

    import torch
    from torch import nn

    from anchor_cache.layout import splice

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.vision_backbone, self.projector = nn.Conv2d(channels, dim, patch, patch), nn.Linear(dim, dim)
            self.embed, self.config = nn.Embedding(1000, dim), SimpleNamespace(pad_token_id=0)
            self.language_model = nn.ModuleList(
                nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0, batch_first=True) for _ in range(2))

        def forward(self, input_ids, attention_mask=None, pixel_values=None, labels=None, output_hidden_states=False):
            patches = self.projector(self.vision_backbone(pixel_values).flatten(2).transpose(1, 2))
            states = [splice(self.embed(input_ids % 1000), patches, layout, dim=-2)]
            mask = nn.Transformer.generate_square_subsequent_mask(states[0].shape[1])
            for layer in self.language_model: states.append(layer(states[-1], src_mask=mask, is_causal=True))
            return SimpleNamespace(hidden_states=tuple(states))

    torch.manual_seed(0)
    return Student()


def check_record(record):
    "Masks, pooling and a gradient, for one record and a small student."
    import torch

    from anchor_cache.layout import TokenLayout, expand_attention_mask, image_token_mask
    from anchor_cache.pooling import mean_pool
    inputs, target = record['model_inputs'], record['target_features'].float()
    ids, own, pixels = inputs['input_ids'], inputs['image_token_mask'], inputs['pixel_values']
    image = torch.cat(list(pixels.values()) if isinstance(pixels, dict) else [pixels]).float()
    layout = TokenLayout(len(own) - len(ids))
    mask = image_token_mask(len(ids), layout)
    require(torch.equal(mask, own), 'the mask that follows from the layout is not the one in the record')
    require(torch.equal(image_token_mask(len(ids), layout, own), own), "a record's own mask is changed")
    attention = expand_attention_mask(inputs['attention_mask'], layout)
    require(attention.shape == own.shape, f'the expanded attention mask has shape {tuple(attention.shape)}')
    patch = int(image.shape[-1] / layout.num_patches ** .5)
    student = make_student(len(image), patch, len(target), layout)
    hidden = student(ids[None], pixel_values=image[None]).hidden_states[-2]
    require(hidden.shape == (1, len(own), len(target)), f'the hidden state has shape {tuple(hidden.shape)}')
    for states in (hidden, hidden.bfloat16()):
        pooled, total = mean_pool(states, mask[None]), torch.zeros(len(target))
        for position in range(len(mask)):
            if mask[position]: total = total + states[0, position].float()
        require(pooled.shape == (1, len(target)) and pooled.dtype == torch.float32,
                f'mean_pool gives {tuple(pooled.shape)}, {pooled.dtype}')
        require(torch.allclose(pooled[0], total / int(mask.sum()), atol=1e-5), 'mean_pool differs from a loop')
    (mean_pool(hidden, mask[None]) - target).pow(2).mean().backward()
    gradient = student.vision_backbone.weight.grad
    require(bool(torch.isfinite(gradient).all()) and bool(gradient.any()), 'the loss has no finite gradient')


def check_training(folder):
    "A stream of batches, a check that refuses another model, a few steps that bring it nearer, the drift, a resume."
    import torch

    from anchor_cache.config import UserError
    from anchor_cache.layout import TokenLayout
    from anchor_cache.retention import Anchors, Constraint, drift
    anchors, constraint = Anchors(folder, batch_size=4), Constraint(eps=1e-4, lr=.1, start=1.)
    record = anchors.dataset[0]
    inputs, image = record['model_inputs'], record['model_inputs']['pixel_values']
    layout = TokenLayout(len(inputs['image_token_mask']) - len(inputs['input_ids']))
    channels = sum(map(len, image.values())) if isinstance(image, dict) else len(image)
    side = (next(iter(image.values())) if isinstance(image, dict) else image).shape[-1]
    student = make_student(channels, int(side / layout.num_patches ** .5), anchors.dataset.meta['hidden_dim'], layout)
    try: anchors.check(student)
    except UserError as e: require('other weights' in str(e), f'another model is refused with: {e}')
    else: require(False, 'check accepts another model')
    before, optimizer = drift(student, anchors.dataset, count=16), torch.optim.Adam(student.parameters(), lr=1e-3)
    for _ in range(8):
        with torch.autocast('cpu', dtype=torch.bfloat16): loss = anchors.loss(student)
        (constraint.weight * loss).backward()
        constraint.add(loss)
        constraint.step()
        optimizer.step()
        optimizer.zero_grad()
    after, other = drift(student, anchors.dataset, count=16), Anchors(folder, batch_size=4)
    require(after.total.loss < before.total.loss, f'trained, the drift went from {before.total} to {after.total}')
    other.load_state_dict(anchors.state_dict())
    require(next(other)[0]['sample'] == next(anchors)[0]['sample'], 'a resumed stream goes on elsewhere')
    places = [[anchors.dataset.samples[n][key] for n in (3, 0)] for key in ('dataset', 'episode', 'step')]
    joined, features = anchors.dataset.join(*places), anchors.dataset.features()
    require(joined.records.tolist() == [3, 0], f'frames of records 3 and 0 are found as {joined.records.tolist()}')
    require(torch.equal(*joined.features.values(), features[[3, 0]]), 'joined features are those of other records')
    say(f'trained 8 steps: drift {before.total.loss:.3g}, then {after.total.loss:.3g}; {anchors.dataset!r}')


def check_schema_2(folder):
    "The same cache in schema 2 with bytes for pixels: equal records, a whole cache, shards that conform."
    import tempfile

    import torch

    from anchor_cache.conformance import file_violations
    from anchor_cache.convert import convert_cache
    from anchor_cache.dataset import AnchorDataset
    from anchor_cache.stores import LocalStore
    from anchor_cache.verify import look_at_cache
    with tempfile.TemporaryDirectory() as place:
        small = Path(place)/'small'
        made = convert_cache(folder, small, pixels='uint8')
        found = look_at_cache(LocalStore(small))
        require(found.whole and not found.findings, f'converted: {found.findings[:3]}')
        before, after = AnchorDataset(folder), AnchorDataset(small)
        for i in range(0, len(before), 7):
            mine, its = (dataset[i]['model_inputs']['pixel_values'] for dataset in (before, after))
            pairs = [(mine[k], its[k]) for k in mine] if isinstance(mine, dict) else [(mine, its)]
            require(all(torch.equal(a, b) for a, b in pairs), f'record {i}: other pixels from bytes')
        require(torch.equal(before.features(), after.features()), 'other features in schema 2')
        faults = file_violations(small/'hidden_anchor_shard_000000.pt')
        require(not faults, f'a converted shard: {faults[:3]}')
    say(f'schema 2: {made.records} records, {made.before / made.bytes:.1f} times smaller, the same pixels')


def check_inside(path):
    "The half that runs in the environment with the base install."
    import_modules()
    from anchor_cache.schema import check_shard
    from anchor_cache.shards import read_shard
    shard = read_shard(path)
    faults = check_shard(shard)
    require(not faults, f'{path.name}: {"; ".join(faults[:3])}')
    for record in shard['records'][:3]: check_record(record)
    say(f'read {len(shard["records"])} records and pooled a student over 3')
    check_training(path.parent)
    check_schema_2(path.parent)


def run_demo(folder):
    "Run the demo of the checkout in the running environment; its folder."
    run(sys.executable, '-c', RUN_DEMO, folder/'demo', ANCHOR_CACHE_HOME=str(folder/'home'))
    say('demo made')
    return folder/'demo'


def install(folder, python, wheel, torch):
    "A new environment with the wheel and no extra; its folder of commands."
    bin = make_environment(folder/'venv', [python])
    pins = [] if torch == 'newest' else [f'torch=={torch}', 'numpy==1.26.4']
    run(bin/'pip', 'install', '-q', '--no-cache-dir', '--no-compile', wheel, *pins, cwd=folder)
    say(f'installed {wheel.name} {" ".join(pins)}')
    return bin


def check_commands(bin, folder, demo, version):
    "Help works, and looking at a cache; a build and a report end with one line that names the extra."
    shown, _ = run(bin/'anchor-cache', '--version', cwd=folder)
    require(shown.strip() == version, f'anchor-cache --version gives {shown.strip()}, the wheel is {version}')
    command, data = [bin/'python', '-m', 'anchor_cache.build'], ROOT/'anchor_cache'/'demo_data'
    shown, _ = run(*command, '--help', cwd=folder)
    require('--teacher_checkpoint' in shown, '--help does not list the flags')
    shown, _ = run(bin/'anchor-cache', 'inspect', demo/'cache', cwd=folder)
    require('L4.mean_image_tokens' in shown, f'inspect does not show the feature: {shown}')
    shown, _ = run(bin/'anchor-cache', 'inspect', demo/'cache', '--sample', 3, cwd=folder)
    require('restored from the pixels' in shown, f'inspect does not show the sample: {shown}')
    _, errors = run(bin/'anchor-cache', 'report', demo/'cache', '-o', folder/'report.html', cwd=folder, status=2)
    require(len(errors.splitlines()) == 1 and 'anchor-cache[report]' in errors,
            f'expected one line that names anchor-cache[report], got: {errors.strip()}')
    (teacher,) = (demo/'teacher'/'checkpoints').glob('*.pt')
    _, errors = run(*command, '--teacher_checkpoint', teacher, '--tokenizer_path', data/'tokenizer', '--data_root_dir',
                    data/'rlds', '--num_samples', 64, '--output_dir', folder/'out', cwd=folder, status=2)
    require(len(errors.splitlines()) == 1 and 'anchor-cache[build]' in errors,
            f'expected one line that names anchor-cache[build], got: {errors.strip()}')
    say(errors.strip())


def check_reader(options):
    "The half that runs where the demo can be built: make demo and environment at the same time, then look inside."
    with temporary_folder() as folder, ThreadPoolExecutor(1) as pool:
        making = None if options.demo else pool.submit(run_demo, folder)
        wheel = options.wheel.resolve() if options.wheel else build(folder)[1]
        bin = install(folder, options.python or find_python(), wheel, options.torch)
        demo = making.result() if making else options.demo.resolve()
        shard = demo/'cache'/'hidden_anchor_shard_000000.pt'
        print(run(bin/'python', Path(__file__).resolve(), '--inside', shard, cwd=folder)[0], end='')
        check_commands(bin, folder, demo, read_metadata(wheel)[1]['Version'])
    say('reader: passed')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--wheel', type=Path, metavar='FILE', help='the wheel to check (default: built here)')
    parser.add_argument('--demo', type=Path, metavar='FOLDER', help='what the demo left (default: it is run here)')
    parser.add_argument('--python', metavar='COMMAND', help='the Python to check with (default: a Python 3.10)')
    parser.add_argument('--torch', metavar='VERSION', default='2.2.0', help='or newest (default: 2.2.0)')
    parser.add_argument('--inside', type=Path, metavar='SHARD', help='used by this script: the environment is made')
    options = parser.parse_args()
    if options.inside: check_inside(options.inside)
    else: check_reader(options)


if __name__ == '__main__':
    main()
