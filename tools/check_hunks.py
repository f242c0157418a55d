"""Apply the diffs of nbs/tutorials/anchors_in_finetune.ipynb to the scripts that they are for; compile the results.

    python tools/check_hunks.py --openvla DIR --oft DIR    exit status 1 when a diff does not apply or compile

DIR is a checkout of openvla or of openvla-oft, whose file is read as it is there, or a bare repository, whose HEAD is
read; one of the two may be left out. A diff begins with a line `REPOSITORY, NAME`, or `REPOSITORY, NAME, on top of
NAME or NAME`, and is tried on each of those. Nothing may be fuzzy; hunks may have moved. Needs `patch`, and `git` for a
bare repository.
"""
import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

NOTEBOOK = Path(__file__).resolve().parent.parent/'nbs'/'tutorials'/'anchors_in_finetune.ipynb'
SCRIPT = 'vla-scripts/finetune.py'


def diffs():
    "(repository, name) → the names that a diff of the notebook stands on, and its text."
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    prose = '\n'.join(c.source for c in cells if c.cell_type == 'markdown')
    found = {}
    for text in re.findall(r'^```diff\n(.*?)^```$', prose, re.S | re.M):
        head = re.match(r'([\w-]+), (\w+)(?:, on top of (.+))?\n--- ', text)
        if not head: raise SystemExit(f'a diff begins with {text.splitlines()[0]!r}, expected "REPOSITORY, NAME"')
        repository, name, bases = head.groups()
        found[repository, name] = (bases.split(' or ') if bases else [], text)
    return found


def chains(found, repository, name):
    "Every sequence of diffs that ends with one of them, from the script as it is."
    bases = found[repository, name][0]
    return [[*chain, name] for base in bases for chain in chains(found, repository, base)] if bases else [[name]]


def original(folder):
    "The script of a checkout or of a bare repository."
    if (path := Path(folder)/SCRIPT).is_file(): return path.read_text(encoding='utf-8')
    shown = subprocess.run(['git', '-C', folder, 'show', f'HEAD:{SCRIPT}'], capture_output=True, text=True)
    if shown.returncode: raise SystemExit(f'{folder}: no {SCRIPT}: {shown.stderr.strip()}')
    return shown.stdout


def patched(script, texts):
    "A script with diffs applied, one after the other; raises `ValueError` with what `patch` said."
    with tempfile.TemporaryDirectory(prefix='anchor_cache_hunks_') as folder:
        path = Path(folder)/SCRIPT
        path.parent.mkdir()
        path.write_text(script, encoding='utf-8')
        for text in texts:
            for dry in (['--dry-run'], []):
                done = subprocess.run(['patch', '-p1', '-F0', '-N', '-r', '-', *dry], cwd=folder, input=text, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                if done.returncode:
                    lines = done.stdout.splitlines()
                    raise ValueError('; '.join([line for line in lines if 'FAILED at' in line] or lines))
        return path.read_text(encoding='utf-8')


def fault(script, texts):
    "Why a script with these diffs is not right, or nothing."
    try: compile(patched(script, texts), SCRIPT, 'exec')
    except ValueError as e: return f'does not apply: {e}'
    except SyntaxError as e: return f'does not compile: line {e.lineno}: {e.msg}'
    return ''


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--openvla', metavar='DIR')
    parser.add_argument('--oft', metavar='DIR')
    options = parser.parse_args(words)
    folders = {k: v for k, v in (('openvla', options.openvla), ('openvla-oft', options.oft)) if v}
    if not folders: parser.error('give --openvla, --oft or both')
    found, wrong = diffs(), 0
    for repository, folder in folders.items():
        script, names = original(folder), [name for of, name in found if of == repository]
        if not names: raise SystemExit(f'{NOTEBOOK.name} has no diff for {repository}')
        for chain in (chain for name in names for chain in chains(found, repository, name)):
            why = fault(script, [found[repository, name][1] for name in chain])
            wrong += bool(why)
            print(f'{repository}, {" + ".join(chain)}: {why or "applies and compiles"}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
