"""A Sphinx extension: what stands behind each parameter as a comment, in a list below its signature."""
import ast
import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

from fastcore.docments import docments

EMPTY = inspect.Parameter.empty
WIDE = 60  # characters of a default that is shown


def marked(text: str) -> str:
    "A docstring's text, with code between backticks, as reStructuredText that can have no markup but that."
    def outside(part: str) -> str: return re.sub(r'([\\*_|`<>:\[\]])', r'\\\1', part)
    parts = text.split('`')
    if len(parts) % 2 == 0: return outside(text)
    return ''.join(outside(part) if i % 2 == 0 else f'\\ ``{part}``\\ ' if part.strip() else ''
                   for i, part in enumerate(parts))


def kind_of(annotation: Any) -> str:
    "An annotation as it would be typed; nothing where there is none."
    if annotation is EMPTY or annotation is None: return ''
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"ForwardRef\('([^']+)'[^)]*\)", r'\1', text)
    return re.sub(r'\b(?:collections\.abc|typing|pathlib|anchor_cache(?:\.\w+)*|torch(?:\.\w+)*)\.(?=[A-Z])', '', text)


def fields_of(thing: type) -> dict[str, dict[str, Any]]:
    "The fields of a dataclass, those of its bases too: type, default, and what is said of each."
    said: dict[str, Any] = {}
    for base in reversed(thing.__mro__):
        if dataclasses.is_dataclass(base): said |= {k: v['docment'] for k, v in docments(base, full=True).items()}
    found = {}
    for field in dataclasses.fields(thing):
        if not field.init: continue
        default = EMPTY if field.default is dataclasses.MISSING else field.default
        comment = said.get(field.name) or field.metadata.get('help')
        found[field.name] = dict(docment=comment, anno=field.type, default=default)
    return found


def fields_of_tuple(thing: type) -> dict[str, dict[str, Any]]:
    "The fields of a named tuple, likewise."
    lines = inspect.getsource(thing)
    said = dict(re.findall(r'^ {4}(\w+): [^#\n]*# (.+)$', lines, re.M))
    return {name: dict(docment=said.get(name), anno=inspect.get_annotations(thing).get(name, EMPTY),
                       default=thing._field_defaults.get(name, EMPTY)) for name in thing._fields}


def parameters(thing: Any) -> dict[str, dict[str, Any]]:
    "The parameters of a function or class, and `return`, as fastcore's `docments` gives them; none where it cannot."
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing): return fields_of(thing)
    if inspect.isclass(thing) and hasattr(thing, '_fields'): return fields_of_tuple(thing)
    if inspect.isclass(thing) and '__init__' not in vars(thing) and thing.__init__ is object.__init__: return {}
    try: return dict(docments(thing, full=True, returns=True))
    except (AttributeError, OSError, SyntaxError, TypeError, ValueError): return {}


def default_text(default: Any) -> str:
    "What a parameter is where it is left out; nothing where it must be given, or is long."
    if default is EMPTY or isinstance(default, dataclasses.Field): return ''
    text = getattr(default, '__qualname__', None) or repr(default)
    return text if len(text) <= WIDE and ' at 0x' not in text and '\n' not in text else ''


def rows(thing: Any) -> Iterator[str]:
    "Lines of a field list: each parameter with its type, its default and its comment."
    found = parameters(thing)
    result = found.pop('return', {})
    for name, said in found.items():
        if name in ('self', 'cls') or not (said.get('docment') or kind_of(said.get('anno'))): continue
        comment = marked(' '.join((said.get('docment') or '').split()))
        default = default_text(said.get('default', EMPTY))
        yield f':param {name}: {comment}' + (
            f' (default ``{default}``)' if default and default != 'None' and '(default' not in comment else '')
        if kind := kind_of(said.get('anno')): yield f':type {name}: ``{kind}``'
    kind = kind_of(result.get('anno'))
    if inspect.isclass(thing) or kind in ('', 'None') and not result.get('docment'): return
    yield ':returns: ' + ' – '.join(filter(None, [kind and f'``{kind}``', marked(result.get('docment') or '')]))


@functools.cache
def comments(path: str) -> dict[str, str]:
    "Comments behind the assignments at the top of a module, by name."
    with open(path, encoding='utf-8') as file: text = file.read()
    lines, found = text.split('\n'), {}
    for node in ast.parse(text).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)): continue
        comment = re.search(r'#\s+((?!noqa|type:).+)$', lines[node.lineno - 1])
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and comment: found[name.id] = comment[1]
    return found


def constant(name: str, value: Any) -> list[str]:
    "What a constant of a module is: its comment, and its value where that is short."
    import importlib
    module, _, own = name.rpartition('.')
    try: said = comments(importlib.import_module(module).__file__ or '').get(own, '')
    except ImportError: return []
    shown = repr(value)
    if ' at 0x' in shown or '\n' in shown: shown = type(value).__name__
    elif len(shown) > 300: shown = shown[:280] + ' …'
    return [*([marked(said), ''] if said else []), f'``{shown}``' if '`' not in shown else marked(shown)]


def describe(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    "Make a docstring safe to read as reStructuredText, and put the list of parameters below it."
    if what in ('data', 'attribute') and not callable(thing):
        lines[:] = constant(name, thing) if what == 'data' else []
        return
    made = dataclasses.is_dataclass(thing) and lines and lines[0].startswith(f'{name.rpartition(".")[2]}(')
    text = [] if what == 'module' or made else [marked(line) for line in lines]  # what dataclass wrote says nothing
    if what in ('function', 'method', 'class', 'exception'): text += ['', *rows(thing)]
    lines[:] = [*text, '']


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    "Leave out fields of dataclasses and tuples, which are among the parameters already."
    if what != 'class' or skipped: return None
    bound = property, functools.cached_property, classmethod, staticmethod
    plain = not callable(thing) and not isinstance(thing, bound)
    return True if plain or type(thing).__name__ in ('member_descriptor', '_tuplegetter') else None


def setup(app: Any) -> dict[str, bool]:
    "Connect this extension to Sphinx."
    app.connect('autodoc-process-docstring', describe)
    app.connect('autodoc-skip-member', skip)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
