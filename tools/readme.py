"""Make README.md from nbs/index.ipynb, without quarto.

    python tools/readme.py          write README.md
    python tools/readme.py --check  exit status 1 when README.md is not up to date
"""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def readme():
    "The text of README.md: the index notebook without its hidden cells, links made relative to the root."
    notebook = nbformat.read(ROOT/'nbs'/'index.ipynb', as_version=4)
    notebook.cells = [c for c in notebook.cells if not re.match(r'#\|\s*hide', c.source)]
    notebook.metadata['language_info'] = {'name': 'python'}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r'\]\(((?:[\w-]+/)?[\w.-]+\.ipynb)', r'](nbs/\1', text)
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
