"""Make README.md from nbs/index.ipynb, without quarto.

    python tools/readme.py          write README.md
    python tools/readme.py --check  exit status 1 when README.md is not up to date
"""
import os
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def from_root(match):
    "A link of the index notebook as README.md has it; exits with status 1 where it leads nowhere."
    path, sign, anchor = match[1].partition('#')
    if not path or re.match('[a-z]+:', path): return match[0]
    if not (ROOT/'nbs'/path).exists(): sys.exit(f'nbs/index.ipynb: {path} leads nowhere')
    return f']({os.path.normpath(os.path.join("nbs", path))}{sign}{anchor})'


def readme():
    "The text of README.md: the index notebook without its hidden cells, links made relative to the root."
    notebook = nbformat.read(ROOT/'nbs'/'index.ipynb', as_version=4)
    notebook.cells = [c for c in notebook.cells if not re.match(r'#\|\s*hide', c.source)]
    for cell in notebook.cells:
        if cell.cell_type == 'markdown': cell.source = re.sub(r'\]\(([^)\s]+)\)', from_root, cell.source)
    notebook.metadata['language_info'] = {'name': 'python'}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r'[ \t]+\n', '\n', text)
    text = re.sub(r'\n{3,}', '\n\n', text).strip()
    return f'<!-- made from nbs/index.ipynb by tools/readme.py; edit that -->\n\n{text}\n'


def main(check=False):
    path, text = ROOT/'README.md', readme()
    if not check: path.write_text(text, encoding='utf-8')
    elif not path.is_file() or path.read_text(encoding='utf-8') != text:
        print('README.md is not what nbs/index.ipynb gives; run python tools/readme.py', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main('--check' in sys.argv[1:]))
