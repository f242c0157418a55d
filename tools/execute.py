"""Run notebooks from top to bottom in a real Jupyter kernel.

    python tools/execute.py                     run all and keep their outputs in the files
    python tools/execute.py nbs/05_layout.ipynb run these
    python tools/execute.py --check             run all, change nothing; exit status 1 when one fails

Cells that begin with `#| slow` or `#| gpu` are left as they are unless --flagged slow or --flagged gpu asks for them.
"""
import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ('slow', 'gpu')


def is_left_out(cell, flagged):
    "Whether a cell carries a flag that was not asked for."
    return any(cell.source.startswith(f'#| {flag}') for flag in FLAGS if flag not in flagged)


def execute(path, keep, flagged):
    "Run one notebook in its own folder; what went wrong, or None."
    start, notebook = time.perf_counter(), nbformat.read(path, as_version=4)
    left_out = [cell for cell in notebook.cells if cell.cell_type == 'code' and is_left_out(cell, flagged)]
    for cell in left_out: cell.cell_type = 'raw'
    client = NotebookClient(notebook, timeout=1800, kernel_name='python3', coalesce_streams=True,
                            extra_arguments=['--log-level=ERROR'], resources={'metadata': {'path': str(path.parent)}})
    try: client.execute()
    except Exception as e: return path, f'{type(e).__name__}: {e}'
    for cell in left_out: cell.cell_type = 'code'
    if keep: nbformat.write(notebook, path)
    print(f'{path.relative_to(ROOT)}: {time.perf_counter() - start:.0f} s in a kernel', flush=True)
    return path, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('notebooks', nargs='*', type=Path)
    parser.add_argument('--check', action='store_true', help='change nothing')
    parser.add_argument('--flagged', nargs='*', choices=FLAGS, default=[], help='run cells with these flags too')
    options = parser.parse_args()
    every = (p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    paths = [p.resolve() for p in options.notebooks] or sorted(every)
    os.environ['TORCH_CPP_LOG_LEVEL'] = 'ERROR'  # no warnings of DDP in the outputs
    os.environ['IN_TEST'] = '1'  # the last cell of a notebook exports nothing: another kernel may be importing
    def run(path): return execute(path, not options.check, options.flagged)
    with ThreadPoolExecutor(2) as pool: results = list(pool.map(run, paths))
    failed = [(p, why) for p, why in results if why]
    for path, why in failed: print(f'FAILED in a kernel: {path.relative_to(ROOT)}\n{why}', file=sys.stderr)
    print(f'kernel: {len(results) - len(failed)} passed, {len(failed)} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
