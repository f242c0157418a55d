"""Read the notebooks as a reader meets them: lines that fit, cells that are short, an example for each public name.

    python tools/check_notebooks.py [NOTEBOOK …]    exit status 1 names every line, cell and name that breaks a rule

Lines of code, prose and tools are at most 120 wide; tables and addresses in prose may be wider, and so may README.md,
which is made from the index and its outputs. An exported cell has at
most 50 lines. A public name is one in a module's `__all__`; its example is a cell of the same notebook that is shown
(neither exported nor hidden) and uses it.
"""
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
WIDE, LONG = 120, 50
TEXTS = ('C*.md', '*.toml', '*.py', '*.in', '*.cff', '.ci/*', 'tools/*', 'vla-scripts/*', '.github/**/*.y*ml')


def directive(cell):
    "What a code cell's first line says to nbdev: export, hide, …, or nothing."
    return m[1] if (m := re.match(r'#\|\s*(\w+)', cell.source)) else ''


def is_free(line):
    "Whether a line of prose may be wide: a row of a table, or an address."
    return line.lstrip().startswith('|') or '://' in line


def too_wide(text, prose):
    "Numbers of the lines that are too wide."
    return [n for n, line in enumerate(text.split('\n'), 1) if len(line) > WIDE and not (prose and is_free(line))]


def public_names(notebook):
    "Names in the `__all__` of the module that a notebook makes, and that module's path."
    for cell in notebook.cells[:3]:
        if m := re.match(r'#\|\s*default_exp (\S+)', cell.source):
            path = ROOT/'anchor_cache'/(m[1].replace('.', '/') + '.py')
            listed = re.search(r'__all__ = \[(.*?)\]', path.read_text(encoding='utf-8'), re.S)
            return re.findall(r"'(\w+)'", listed[1]) if listed else []
    return []


def faults(path):
    "One line for each rule that a notebook breaks."
    notebook, name = nbformat.read(path, as_version=4), path.relative_to(ROOT)
    for n, cell in enumerate(notebook.cells):
        where = f'{name}, cell {n}'
        for line in too_wide(cell.source, cell.cell_type != 'code'): yield f'{where}: line {line} is wider than {WIDE}'
        rows = [line for line in cell.source.split('\n') if line.strip() and not line.startswith('#|')]
        if directive(cell) == 'export' and len(rows) > LONG: yield f'{where}: {len(rows)} lines, more than {LONG}'
    code = [c for c in notebook.cells if c.cell_type == 'code']
    shown = '\n'.join(c.source for c in code if directive(c) not in ('export', 'exporti', 'hide'))
    for public in public_names(notebook):
        if not re.search(rf'\b{public}\b', shown): yield f'{name}: {public} has no visible example'


def main(words):
    every = (p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    paths = [Path(w).resolve() for w in words] or sorted(every)
    wrong = [fault for path in paths for fault in faults(path)]
    if not words:
        for path in sorted({p for pattern in TEXTS for p in ROOT.glob(pattern) if p.is_file()}):
            lines = too_wide(path.read_text(encoding='utf-8'), path.suffix == '.md')
            wrong += [f'{path.relative_to(ROOT)}: line {line} is wider than {WIDE}' for line in lines]
    print(*wrong, f'{len(paths)} notebooks, {len(wrong)} against the rules', sep='\n')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
