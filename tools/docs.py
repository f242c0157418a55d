"""Build the documentation site from the notebooks, the README and docs/: no network, no notebook is run.

    python tools/docs.py [--out _docs] [--base_url URL]   exit status 1 names what is wrong: every warning is an error

What Sphinx reads is collected in build/docs: notebooks without hidden cells and nbdev's directives, a page of
signatures for each module, the help of each command. Links between notebooks, README and files of this repository
lead to the pages made from them, or to copies; one that leads nowhere is an error, and so is a broken link in a page
that was built. Beside the pages lie their texts in Markdown, llms.txt, which lists them, and llms-full.txt.
"""
import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS, DOCS, WORK = ROOT/'nbs', ROOT/'docs', ROOT/'build'/'docs'
TUTORIALS = (  # in the order in which they are to be read; others follow
    'build_your_first_cache', 'explore_a_dataset', 'what_a_pooled_feature_sees', 'token_layouts', 'your_own_dataset',
    'your_own_teacher', 'richer_anchors', 'train_with_a_cache', 'anchors_in_finetune', 'from_one_machine_to_many')
CONCEPTS = 'concepts', 'cache_format', 'schema_2'  # pages of docs/ or notebooks of nbs/, by name
AREAS = (  # folder, first notebook, title, what its modules are for; a notebook belongs to the last area before it
    ('', '00', 'Foundations', 'Choices, files, schemas, token layouts, poolings: what everything else is made of'),
    ('', '07', 'A cache on disk', 'Stores, manifests, shards, claims: how a cache comes to lie in a folder'),
    ('', '15', 'Status and verification', 'How far a cache is, and whether it is whole'),
    ('', '19', 'Reading', 'The records of a cache, by number or by frame, in batches as a model takes them'),
    ('', '21', 'Training', 'How a cache holds a student near its teacher; begin with retention'),
    ('', '27_s', 'Look, convert, publish', 'Inspection, reports, cards, and other forms of a cache that is there'),
    ('data', '00', 'Datasets', 'Frames of RLDS datasets, with the pixels of OpenVLA’s training'),
    ('teachers', '00', 'Teachers', 'Every format that a teacher comes in, opened without running code from it'),
    ('', '30', 'Building', 'From a teacher and frames to shards: plan, pipeline, runs'),
    ('', '38', 'Command line and measurements', 'The command line, the demo, benchmarks'))
LOOK = '27_card', '27_restore', '37_sample', '38_overview', '38_report', '39_inspection', '39_push', '39_report'
# LOOK: notebooks of the area of that name, whatever their number
FULL = 600_000  # bytes that llms-full.txt may have


@dataclass
class Page:
    "A page of the site, as it is made from a file of the repository."
    name: str  # its path in the site, without a suffix
    source: str  # path of the file in the repository
    title: str
    promise: str = ''
    cells: list = field(default_factory=list)  # of a notebook
    text: str = ''  # of a Markdown file
    module: str = ''  # that the notebook makes

    @property
    def file(self) -> str: return self.name + ('.ipynb' if self.cells else '.md')


def slug(text):
    "A heading as the last part of an address."
    return re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', text.lower()).strip())


def directive(cell):
    "What a code cell's first lines say to nbdev."
    return re.findall(r'^#\|\s*(\w+)', cell.source, re.M) if cell.cell_type == 'code' else []


def head(cells):
    "Title and promise, as the first cell of a notebook has them."
    title, _, rest = cells[0].source.partition('\n')
    promise = re.match(r'\s*(>.*(?:\n.*\S.*)*)', rest)
    return title.lstrip('# ').strip(), ' '.join(re.sub(r'^> ?', '', promise[1], flags=re.M).split()) if promise else ''


def module_of(cells):
    "The module that a notebook makes; nothing if it makes none."
    found = (re.match(r'#\|\s*default_exp (\S+)', cell.source) for cell in cells[:3])
    return next((m[1] for m in found if m), '')


def imports_alone(source):
    "Whether code is imports, and what a module says that it re-exports."
    return all(isinstance(node, (ast.Import, ast.ImportFrom)) or isinstance(node, ast.Assign)
               and getattr(node.targets[0], 'id', '') == '_all_' for node in ast.parse(source).body)


def visible(cells):
    "The cells that a reader sees, without nbdev's directives; those that make the package are tagged."
    for cell in cells:
        said = directive(cell)
        if {'hide', 'default_exp'} & {*said}: continue
        if said: cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip('\n')
        exported = bool({'export', 'exporti'} & {*said})
        folded = ['hide-input'] if exported and imports_alone(cell.source) else []
        cell.metadata = nbformat.from_dict(dict(tags=['exported', *folded] if exported else []))
        if cell.source.strip(): yield cell


def read_notebook(path, name=None):
    "The page of a notebook."
    cells = nbformat.read(path, as_version=4).cells
    title, promise = head(cells)
    module = module_of(cells)
    name = name or f'how/{module.replace(".", "/")}'
    return Page(name, str(path.relative_to(ROOT)), title, promise, [*visible(cells)], module=module)


def readme_page():
    "The README as a page: the index notebook under another title, since the site has its own front page."
    page = read_notebook(NBS/'index.ipynb', 'guide/quick_start')
    page.title = 'Quick start'
    page.cells[0].source = re.sub(r'^# .*', f'# {page.title}', page.cells[0].source)
    return page


def read_text(path, name):
    "The page of a Markdown file."
    text = path.read_text(encoding='utf-8')
    title = re.search(r'^# (.+)$', text, re.M)
    promise = re.search(r'^> (.+)$', text, re.M)
    return Page(name, str(path.relative_to(ROOT)), title[1] if title else name, promise[1] if promise else '',
                text=text)


def area_of(path):
    "The title of the area that a notebook of a module belongs to."
    folder = str(path.relative_to(NBS).parent).replace('.', '')
    fits = [title for place, first, title, _ in AREAS if place == folder and first <= path.stem]
    if not folder and path.stem.startswith(LOOK): return 'Look, convert, publish'
    return fits[-1] if fits else AREAS[0][2]


@dataclass
class Site:
    "All pages, by what they are."
    front: Page
    tutorials: list
    guide: list
    concepts: list
    project: list
    checks: list
    modules: dict  # title of an area → pages of notebooks

    def all(self):
        "Every page that is made from a file."
        return [self.front, *self.tutorials, *self.guide, *self.concepts, *self.project, *self.checks,
                *(page for pages in self.modules.values() for page in pages)]


def collect():
    "The pages of the site."
    guides = sorted((NBS/'guide').glob('*.ipynb'))
    guide = [readme_page(), *(read_notebook(p, f'guide/{re.sub("^[0-9]+_", "", p.stem)}') for p in guides)]
    every = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    tutorials = {p.stem: read_notebook(p, f'tutorials/{p.stem}') for p in every if p.parent.name == 'tutorials'}
    order = [name for name in TUTORIALS if name in tutorials] + sorted(tutorials.keys() - {*TUTORIALS})
    concepts = [read_text(DOCS/f'{n}.md', n) if (DOCS/f'{n}.md').is_file() else read_notebook(NBS/f'{n}.ipynb', n)
                for n in CONCEPTS if (DOCS/f'{n}.md').is_file() or (NBS/f'{n}.ipynb').is_file()]
    checks = [read_notebook(p, f'checks/{p.stem}') for p in every if p.parent.name == 'checks']
    modules = {title: [] for _, _, title, _ in AREAS}
    for p in every:
        if (page := read_notebook(p)).module: modules[area_of(p)].append(page)
    texts = [(DOCS/'index.md', 'index'), (ROOT/'examples'/'README.md', 'project/examples'),
             (ROOT/'CONTRIBUTING.md', 'project/contributing'), (ROOT/'CHANGELOG.md', 'project/changelog')]
    front, *project = (read_text(*text) for text in texts)
    return Site(front, [tutorials[name] for name in order], guide, concepts, project, checks, modules)


class Links:
    "Where the links of a file lead to in the site."
    def __init__(self, site):
        self.pages = {page.source: page for page in reversed(site.all())}
        self.pages['README.md'] = self.pages['nbs/index.ipynb']
        self.copies, self.broken = set(), []

    def lead(self, page, target, suffix=None):
        "The address of what a link of a page names; `suffix` is that of pages, their file's own if left out."
        path, _, anchor = target.partition('#')
        if re.match(r'[a-z]+:', target): return target
        anchor = anchor.lower()  # JupyterLab keeps a heading's capitals, GitHub and this site do not
        if not path: return f'#{anchor}'
        source = os.path.normpath(os.path.join(os.path.dirname(page.source), unquote(path)))
        found = self.pages.get(source)
        if found: to = found.file if suffix is None else found.name + suffix
        elif (ROOT/source).is_file() and not source.startswith('..'):
            self.copies.add(source)
            to = f'files/{source}'
        else:
            self.broken.append(f'{page.source}: {target} leads nowhere')
            return target
        where = os.path.relpath(to, os.path.dirname(page.name) or '.')
        return where + (f'#{anchor}' if anchor else '')

    def rewrite(self, page, text, suffix=None):
        "Markdown with its links as they are in the site; code is left alone."
        def new(match): return match[1] + self.lead(page, match[2], suffix) + match[3]
        parts = re.split(r'(^```.*?^```|`[^`\n]+`)', text, flags=re.M | re.S)
        for i in range(0, len(parts), 2):
            parts[i] = re.sub(r'(\]\()([^()\s]+)(\))', new, parts[i])
            parts[i] = re.sub(r'(<(?:img|source)\b[^>]*?\bsrc(?:set)?=")([^"]+)(")', new, parts[i])
        return ''.join(parts)


def defined(source):
    "Names that the code of a cell defines."
    try: body = ast.parse(source).body
    except SyntaxError: return []  # a cell of shell or magic
    names = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assigned = [t for node in body if isinstance(node, (ast.Assign, ast.AnnAssign))
                for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return names + [n.id for t in assigned for n in ast.walk(t) if isinstance(n, ast.Name) and n.id[0] != '_']


def markdown_cell(text): return nbformat.v4.new_markdown_cell(text)


def notebook_text(page, links):
    "A notebook as Sphinx reads it: links rewritten, and an anchor at every name that the package has from it."
    cells, here = [], page.name.count('/')
    for cell in page.cells:
        if cell.cell_type == 'markdown': cell = markdown_cell(links.rewrite(page, cell.source))
        elif names := 'exported' in cell.metadata.get('tags', []) and defined(cell.source):
            cells.append(markdown_cell(' '.join(f'<span id="{name}" class="name"></span>' for name in names)))
        cells.append(cell)
    if page.module:
        api = '../' * here + f'api/{page.module.replace(".", "/")}.md'
        cells.insert(1, markdown_cell(f'Module `anchor_cache.{page.module}` · [signatures]({api})'))
    for i, cell in enumerate(cells): cell['id'] = f'cell-{i}'
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=dict(
        kernelspec=dict(name='python3', display_name='Python 3', language='python'),
        language_info=dict(name='python'))))


def toctree(entries, caption='', hidden=True):
    "A table of contents; entries are pages or (title, name) with names from the root of the site."
    rows = [f':{key}:' for key, on in (('hidden', hidden),) if on] + ([f':caption: {caption}'] if caption else [])
    rows += [f'{e.title} </{e.name}>' if isinstance(e, Page) else f'{e[0]} </{e[1]}>' for e in entries]
    return '\n'.join(['```{toctree}', *rows, '```', ''])


def cards(pages):
    "Pages as a grid of links, each with its promise."
    rows = [f'- **[{page.title}]({page.file})**\\\n  {page.promise}' for page in pages]
    return '\n'.join([':::{container} cards', '', *rows, '', ':::'])


def homes(tree, module):
    "Name → module of this package that a module imports it from."
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom): continue
        base = '.'.join(f'anchor_cache.{module}'.split('.')[:-node.level or None]) if node.level else ''
        source = '.'.join(filter(None, [base, node.module]))
        found |= {alias.asname or alias.name: source for alias in node.names if source.startswith('anchor_cache')}
    return found


def api_text(page):
    "The page of a module's signatures."
    up, name = '../' * (1 + page.module.count('.')), f'anchor_cache.{page.module}'
    source = (ROOT/'anchor_cache'/(page.module.replace('.', '/') + '.py')).read_text(encoding='utf-8')
    tree = ast.parse(source)
    listed = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)
                   and isinstance(n.targets[0], ast.Name) and n.targets[0].id == '__all__'), [])
    there = {n: home for n, home in homes(tree, page.module).items() if n in listed and n not in defined(source)}
    also = ', '.join(f'{{py:obj}}`{n} <{home}.{n}>`' for n, home in sorted(there.items(), key=lambda e: e[0].lower()))
    made = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    constants = [f'.. autodata:: {name}.{n}\n   :no-value:\n' for n in listed if n not in made and n not in there]
    return '\n'.join([
        f'# {name}', '', f'> {page.promise}', '', f'Explained with examples in [its notebook]({up}{page.file}).',
        *(['', f'Also here, from other modules: {also}.'] if also else []), '',
        '```{eval-rst}', f'.. automodule:: {name}', *([f'   :exclude-members: {", ".join(there)}'] if there else []),
        *constants, '```', '', toctree([('The notebook', page.name)])])


def area_text(title, about, pages):
    "The page of an area: its modules, what each is for, and the way to both of its pages."
    rows = [f'| [{p.module}](../api/{p.module.replace(".", "/")}.md) | {p.promise} | [notebook](../{p.file}) |'
            for p in pages]
    contents = toctree([(p.module, f'api/{p.module.replace(".", "/")}') for p in pages])
    return '\n'.join([f'# {title}', '', f'{about}.', '', '| module | what it is | how it works |', '|---|---|---|',
                      *rows, '', contents])


def commands_text():
    "The help of every command, as it prints it."
    os.environ |= dict(COLUMNS='100', NO_COLOR='1')
    ask = ('from anchor_cache import cli\nimport contextlib, io, json\nfound = {}\nfor name in ["", *cli.COMMANDS]:\n'
           '    text = io.StringIO()\n    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):\n'
           '        cli.main([name, "--help"] if name else ["--help"])\n    found[name] = text.getvalue()\n'
           'print(json.dumps(found))')
    found = json.loads(subprocess.run([sys.executable, '-c', ask], check=True, cwd=ROOT, stdout=subprocess.PIPE,
                                      env={**os.environ, 'PYTHONPATH': str(ROOT)}, text=True).stdout.split('\n')[-2])
    rows = ['# Command line', '', '> What each command of `anchor-cache` says with `--help`', '']
    for name, text in found.items():
        if not text.strip(): continue  # a command that is still to come
        rows += ([f'## anchor-cache {name}', ''] if name else []) + ['```text', text.strip(), '```', '']
    return '\n'.join(rows)


def write(path, text):
    "Write a file if it is to change, so that Sphinx reads anew only what did."
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text(encoding='utf-8') != text: path.write_text(text, encoding='utf-8')
    return path


def front_text(site, links):
    "The front page, with the table of contents of the whole site."
    text = links.rewrite(site.front, site.front.text)
    for name, pages in (('tutorials', site.tutorials), ('guide', site.guide), ('concepts', site.concepts)):
        text = text.replace(f'{{{{{name}}}}}', cards(pages))
    reference = [('Command line', 'reference/commands'), ('Python modules', 'reference/index'),
                 ('Checks', 'reference/checks')]
    return '\n'.join([
        text, toctree(site.tutorials, 'Tutorials'), toctree(site.guide, 'Guide'),
        toctree(site.concepts, 'Concepts and format'), toctree(reference, 'Reference'),
        toctree(site.project, 'Project')])


def sources(site, links):
    "Path in the site → text of everything that Sphinx reads."
    found = {'index.md': front_text(site, links), 'reference/commands.md': commands_text()}
    for page in site.all()[1:]:
        found[page.file] = notebook_text(page, links) if page.cells else links.rewrite(page, page.text)
    rows, areas = [], []
    for _, _, title, about in AREAS:
        if not (pages := site.modules[title]): continue
        name = f'reference/{slug(title)}'
        found[f'{name}.md'] = area_text(title, about, pages)
        areas.append((title, name))
        names = ', '.join(f'[{p.module.rpartition(".")[2]}](../api/{p.module.replace(".", "/")}.md)' for p in pages)
        rows.append(f'## [{title}]({slug(title)}.md)\n\n{about}.\n\n{names}\n')
        for page in pages: found[f'api/{page.module.replace(".", "/")}.md'] = api_text(page)
    found['reference/index.md'] = '\n'.join([
        '# Python modules', '', '> Signatures and parameters of every public name, and the notebook that explains it',
        '', *rows, toctree(areas)])
    checks = '\n'.join(f'| [{p.title}](../{p.file}) | {links.rewrite(p, p.promise)} |' for p in site.checks)
    found['reference/checks.md'] = '\n'.join([
        '# Checks', '', '> What this project was held against, and what came of it', '',
        '| check | what it shows |', '|---|---|', checks, '', toctree(site.checks)])
    found['places.json'] = json.dumps({p.module: p.name for pages in site.modules.values() for p in pages}, indent=0)
    return found


def collect_sources(site, links, source):
    "Write what Sphinx reads, and remove what it is no longer to read; paths of all of it."
    kept = {write(source/name, text) for name, text in sources(site, links).items()}
    for path in [*DOCS.glob('*.py'), *DOCS.glob('static/*')]:
        kept.add(write(source/path.relative_to(DOCS), path.read_text(encoding='utf-8')))
    for name in sorted(links.copies):
        (source/'files'/name).parent.mkdir(parents=True, exist_ok=True)
        kept.add(Path(shutil.copy(ROOT/name, source/'files'/name)))
    for path in source.rglob('*'):
        if path.is_file() and path not in kept and '__pycache__' not in path.parts: path.unlink()
    return [str(path.relative_to(source)) for path in kept]


def publish(built, out, pages):
    "Put what Sphinx made in its place, without pages of an earlier build."
    if out.is_dir() and any(out.iterdir()) and not (out/'objects.inv').is_file():
        raise SystemExit(f'--out: {out} is a folder with something else in it; name another one')
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(built, out, ignore=shutil.ignore_patterns('.buildinfo*', '_sources'))
    for path in out.rglob('*.html'):
        if str(path.relative_to(out)) not in pages | {'search.html'}: path.unlink()


def plain_text(page, links):
    "A page as Markdown, for whoever reads no HTML: its code, what that printed, no pictures."
    if not page.cells: return links.rewrite(page, page.text, '.html')
    parts = []
    for cell in page.cells:
        if cell.cell_type == 'markdown': parts.append(links.rewrite(page, cell.source, '.html'))
        elif cell.cell_type == 'code':
            parts.append(f'```python\n{cell.source}\n```')
            printed = ''.join(o.text if 'text' in o else o.data.get('text/plain', '') for o in cell.outputs
                              if 'text' in o or 'data' in o and 'image/png' not in o.data).rstrip()
            if printed: parts.append(f'```text\n{printed}\n```')
    return '\n\n'.join(parts) + '\n'


def write_texts(site, links, out, base):
    "llms.txt, llms-full.txt and the text of every page beside it; the form is that of https://llmstxt.org."
    texts = {page.name: plain_text(page, links) for page in site.all()[1:]}
    texts['reference/commands'] = commands_text()
    for name, text in texts.items(): write(out/f'{name}.html.md', text)
    def entries(pages):  # promises without their links, which lead from another page
        promises = [re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', page.promise) for page in pages]
        return [f'- [{p.title}]({base}{p.name}.html.md){f": {promise}" if promise else ""}'
                for p, promise in zip(pages, promises)]
    title, promise = head(nbformat.read(NBS/'index.ipynb', as_version=4).cells)
    about = re.search(r'<!-- about -->\n(.+?)\n<!-- -->', site.front.text, re.S)
    modules = [page for pages in site.modules.values() for page in pages]
    commands = Page('reference/commands', '', 'Command line', 'what each command says with --help')
    rows = [f'# {title}', '', f'> {promise}', '', *([about[1], ''] if about else [])]
    for name, pages in (('Tutorials', site.tutorials), ('Guide', [*site.guide, commands]),
                        ('Concepts and format', site.concepts), ('Modules', modules),
                        ('Optional', [*site.checks, *site.project])):
        rows += [f'## {name}', '', *entries(pages), '']
    write(out/'llms.txt', '\n'.join(rows))
    full = '\n\n'.join(texts[p.name] for p in [*site.tutorials, *site.guide, commands, *site.concepts])
    if len(full.encode()) <= FULL: write(out/'llms-full.txt', f'# {title}\n\n> {promise}\n\n{full}')
    return len(full.encode())


def broken_links(out):
    "Links in the pages that were built whose page, file or anchor is not there."
    text = {path: path.read_text(encoding='utf-8') for path in out.rglob('*.html')}
    anchors = {path: {*re.findall(r'\bid="([^"]+)"', page)} for path, page in text.items()}
    for path, page in text.items():
        for link in sorted({*re.findall(r'<(?:a|img|link|script|source)\b[^<>]*?\s(?:href|src)="([^"]+)"', page)}):
            where, _, anchor = link.replace('&amp;', '&').partition('#')
            if re.match(r'[a-z]+:|//', link) or link.startswith('#') and not anchor: continue
            to = (path.parent/unquote(where.partition('?')[0])).resolve() if where else path
            if not to.exists(): yield f'{path.relative_to(out)}: {link} leads nowhere'
            elif anchor and to in anchors and unquote(anchor) not in anchors[to]:
                yield f'{path.relative_to(out)}: {link}: the page has no such anchor'


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', default='_docs', metavar='FOLDER', help='of the site (default: _docs)')
    parser.add_argument('--base_url', default='', metavar='URL', help='where the site will be, for addresses in full')
    options = parser.parse_args(words)
    out, base = Path(options.out).resolve(), options.base_url and options.base_url.rstrip('/') + '/'
    site = collect()
    links = Links(site)
    pages = collect_sources(site, links, WORK/'source')
    built = WORK/'html'
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-a',  # -a: every page has the sidebar
               '-j', str(min(2, os.cpu_count() or 1)), '-d', str(WORK/'doctrees'), '-D', f'html_baseurl={base}',
               str(WORK/'source'), str(built)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    failed = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if failed: shutil.rmtree(WORK/'doctrees', ignore_errors=True)  # so that the next build warns of all of it again
    if not (built/'objects.inv').is_file(): return failed
    publish(built, out, {str(Path(page).with_suffix('.html')) for page in pages})
    size = write_texts(site, links, out, base)
    wrong = [*sorted({*links.broken}), *broken_links(out)]
    if wrong: print(*wrong, f'{len(wrong)} broken links', sep='\n', file=sys.stderr)
    full = f'{"of" if size <= FULL else "left out, it has"} {size / 1e3:.0f} kB'
    print(f'{len([*out.rglob("*.html")])} pages in {out}, llms-full.txt {full}')
    return 1 if wrong or failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
