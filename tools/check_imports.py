"""Read the imports of every module: no circle, the reading order kept, nothing heavier than torch under the reader.

    python tools/check_imports.py            check; exit status 1 names every import that breaks a rule
    python tools/check_imports.py --graph    print each module with the modules that it imports

The reading order is that of the notebooks' numbers inside a folder. In the top folder, notebooks below 30 come before
the sub-packages, and those from 30 on after them. Sub-packages do not import each other. Imports inside functions count
for the order, and not for what is heavy.
"""
import ast
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'anchor_cache'
READER = ('config', 'schema', 'layout', 'pooling', 'shards', 'dataset', 'craft', 'retention')  # what training imports
ABOVE = '30'  # the first number of the notebooks that use sub-packages
LIGHT = {'torch'} | set(sys.stdlib_module_names)


def notebooks():
    "Module name → (folder, number) of the notebook that it comes from."
    found = {}
    for path in sorted((ROOT/'nbs').rglob('*.ipynb')):
        for cell in nbformat.read(path, as_version=4).cells[:3]:
            if m := re.match(r'#\|\s*default_exp (\S+)', cell.source):
                found[m[1]] = str(path.relative_to(ROOT/'nbs').parent), path.name
    return found


def absolute(node, module):
    "The module that a `from … import` names, in full."
    if not node.level: return node.module
    base = f'{PACKAGE}.{module}'.split('.')[:-node.level]
    return '.'.join([*base, node.module] if node.module else base)


def imports(module, known):
    "Names that a module imports, of this package and of others, each with whether that is inside a function."
    own, others = set(), set()
    tree = ast.parse((ROOT/PACKAGE/(module.replace('.', '/') + '.py')).read_text(encoding='utf-8'))
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        inside = id(node) not in at_top
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            inner = [f'{base}.{a.name}' for a in node.names]  # a module of a package, or a name in a module
            names = [name if name.removeprefix(f'{PACKAGE}.') in known else base for name in inner]
        else: continue
        for name in names:
            if not name.startswith(PACKAGE): others.add((name.split('.')[0], inside))
            elif (inner := name.removeprefix(f'{PACKAGE}.')) in known: own.add((inner, inside))
    return own, others


def closure(start, graph):
    "Every module that some modules import, themselves included."
    seen, todo = set(), [m for m in start if m in graph]
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo += graph[module]
    return seen


def against_order(places, graph):
    "One line for each import that breaks the order; without one there is no circle."
    def is_above(module): return '.' not in module and places[module][1] >= ABOVE
    for module, used in sorted(graph.items()):
        for other in sorted(used):
            (folder, number), (other_folder, other_number) = places[module], places[other]
            line = f'{module} imports {other}'
            if folder == other_folder and other_number >= number: yield f'{line}: against the reading order'
            elif '.' in module and '.' in other and folder != other_folder: yield f'{line}: of another sub-package'
            elif '.' in module and is_above(other): yield f'{line}: which is above the sub-packages'
            elif '.' in other and '.' not in module and not is_above(module): yield f'{line}: which is above it'


def too_heavy(graph, others):
    "One line for each import that loads more than torch under the reader."
    for module in sorted(closure(READER, graph)):
        for name, inside in sorted(others[module]):
            if name not in LIGHT and not inside: yield f'{module} imports {name}: the reader needs torch alone'


def main(words):
    places = notebooks()
    found = {m: imports(m, places) for m in places}
    graph = {m: {name for name, _ in own} for m, (own, _) in found.items()}
    loaded = {m: {name for name, inside in own if not inside} for m, (own, _) in found.items()}
    if '--graph' in words:
        for module in sorted(graph, key=places.get): print(f'{module:28}', ', '.join(sorted(graph[module])))
    wrong = [*against_order(places, graph), *too_heavy(loaded, {m: others for m, (_, others) in found.items()})]
    total = sum(map(len, graph.values()))
    print(*wrong, f'{len(graph)} modules, {total} imports, {len(wrong)} against the rules', sep='\n')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
