"""Seeded changes to files: of bytes, of JSON, of a zip and the pickle in it, of command-line words. Used by fuzz.py.

A mutation is a function of a `random.Random` and the original bytes that gives other bytes.
"""
import copy
import io
import json
import pickletools
import re
import struct
import zipfile

LENGTHS = (0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def position(rng, size):
    "A place in a file; its start and its end, where headers and tables stand, come up more often."
    edge = min(size, 256)
    return rng.choice((rng.randrange(size), rng.randrange(edge), size - 1 - rng.randrange(edge))) if size else 0


def flip(rng, data, at): data[at] ^= 1 << rng.randrange(8)
def replace_byte(rng, data, at): data[at] = rng.randrange(256)
def truncate(rng, data, at): del data[at:]
def delete(rng, data, at): del data[at:at + rng.choice((1, 4, rng.randint(1, 4096)))]
def insert(rng, data, at): data[at:at] = rng.randbytes(rng.choice((1, 4, rng.randint(1, 512))))


def fill(rng, data, at):
    count = rng.choice((4, 64, 4096))
    data[at:at + count] = bytes([rng.choice((0, 0xff, 0x80))]) * count


def repeat(rng, data, at):
    block = bytes(data[at:at + rng.choice((1, 16, 1024))])
    data[at:at] = block * rng.choice((1, 1, 3, 100, 5000 if len(block) < 64 else 2))


def move(rng, data, at):
    size, other = rng.choice((4, 64, 1024)), position(rng, len(data))
    data[at:at + size], data[other:other + size] = data[other:other + size], data[at:at + size]


def write_length(rng, data, at):
    code, value = rng.choice(('<I', '>I', '<Q', '>Q', '<H')), rng.choice((*LENGTHS, len(data), rng.randrange(1 << 20)))
    size = struct.calcsize(code)
    data[at:at + size] = struct.pack(code, value & (1 << 8 * size) - 1)


BYTES = (flip, flip, flip, replace_byte, replace_byte, truncate, delete, insert, fill, repeat, move, write_length,
         write_length)


def mutate_bytes(rng, data):
    "One to three changes anywhere."
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data: rng.choice(BYTES)(rng, data, position(rng, len(data)))
    return bytes(data)


# What stands for a value that `json.dumps` cannot write, and its text
RAW = {'@deep': '[' * 900 + ']' * 900, '@deeper': '[' * 100_000 + ']' * 100_000,
       '@objects': '{"a":' * 5000 + '1' + '}' * 5000, '@unclosed': '[' * 5000,
       '@digits': '9' * 5000, '@infinite': '1e999', '@bare': 'None', '@tiny': '-1e-400'}
VALUES = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, float('nan'), float('inf'), -float('inf'), 1e308, 10 ** 4, 10 ** 9,
    2 ** 31, 2 ** 63, -2 ** 63, 10 ** 30, '', ' ', 'x', 'x' * 300, 'x' * 5000, '\0', 'a\0b', '\ud800', '日本', '1',
    '-1', 'nan', '/', '..', '../../etc/passwd', '/dev/zero', '{0}', '{a.b[0]}', '{x:>99999999}', '%s%n', '(a+)+$',
    '((.*)*)*x', '[', '\\', 'hub', [], [[]], [None], [0], ['x'], [1e308] * 4, {}, {'': 0}, {'a': {}}, [{}],
    ['x'] * 1000, *RAW)
NAMES = ('', 'x', 'x' * 300, 'model_type', '__class__', 'auto_map', '\0', '\ud800', '..', '/', '(a+)+$', '((.*)*)*x',
         '_x')


def places(value, found):
    "Every dict or list in a JSON value, with a key or index: where a change can be made."
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)): places(value[key], found)
    return found


def nearby(rng, value):
    "A value of the same type that differs."
    if isinstance(value, bool): return not value
    if isinstance(value, int): return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, value // 2))
    if isinstance(value, float): return rng.choice((-value, value * 1e10, value + 1e-7, 1 / value if value else 1.))
    if isinstance(value, str): return rng.choice((value[:-1], value + value, value.upper(), value + '\0', value[1:]))
    if isinstance(value, list): return rng.choice((value[:-1], value + value, value[::-1], value * 1000))
    return {k: v for k, v in list((value or {}).items())[1:]}


def change_json(rng, root):
    "One change to a JSON value, made in place."
    value, key = rng.choice(places(root, []))
    kind = rng.choice(('value', 'value', 'value', 'near', 'near', 'delete', 'name', 'add', 'swap', 'wrap'))
    if kind == 'value': value[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 'near': value[key] = nearby(rng, value[key])
    elif kind == 'wrap': value[key] = rng.choice(([value[key]], {'x': value[key]}, str(value[key])))
    elif kind == 'delete': del value[key]
    elif kind == 'swap':
        other, place = rng.choice(places(root, []))
        value[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value[key])
    elif isinstance(value, list): value.insert(key, copy.deepcopy(rng.choice(VALUES)))
    elif kind == 'name': value[rng.choice(NAMES)] = value.pop(key)
    else: value[rng.choice(NAMES)] = copy.deepcopy(rng.choice(VALUES))


def mutate_json(rng, data):
    "One or two changes to the values in a JSON file; of its bytes in one case of five."
    if rng.random() < .2: return mutate_bytes(rng, data)
    root = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 1, 2))):
        if places(root, []): change_json(rng, root)
    text = json.dumps(root[0] if root else None)
    for name, raw in RAW.items(): text = text.replace(f'"{name}"', raw)
    return text.encode()


def opcodes(data):
    "(start, end) of each opcode of a pickle."
    starts = [at for _, _, at in pickletools.genops(data)]
    return list(zip(starts, [*starts[1:], len(data)]))


def mutate_pickle(rng, data):
    "A pickle with an opcode replaced, removed, repeated or moved, or with changed bytes."
    if rng.random() < .4: return mutate_bytes(rng, data)
    spans, out = opcodes(data), bytearray(data)
    (start, end), (a, b) = rng.choice(spans), rng.choice(spans)
    kind = rng.randrange(5)
    if kind == 0: out[start] = ord(rng.choice(pickletools.opcodes).code)
    elif kind == 1: del out[start:end]
    elif kind == 2: out[start:start] = data[a:b]
    elif kind == 3: out[start:end] = data[a:b]
    elif end - start > 1:  # the number or text of an opcode
        out[start + 1:end] = mutate_bytes(rng, data[start + 1:end])
    return bytes(out)


def zipped(members):
    "A zip file of (name, bytes), nothing compressed, as `torch.save` writes it."
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for name, data in members: z.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def members_of(data):
    "(name, bytes) of a zip file's members."
    with zipfile.ZipFile(io.BytesIO(data)) as z: return [(name, z.read(name)) for name in z.namelist()]


def mutate_zip(rng, data):
    "A valid zip of `torch.save` in which the pickle is changed; now and then another member, or the list of them."
    members = members_of(data)
    pickle = next(i for i, (name, _) in enumerate(members) if name.endswith('data.pkl'))
    at = pickle if rng.random() < .8 else rng.randrange(len(members))
    name, content = members[at]
    kind = rng.randrange(4) if at != pickle else 0
    if kind == 0: members[at] = name, (mutate_pickle if at == pickle else mutate_bytes)(rng, content)
    elif kind == 1: del members[at]
    elif kind == 2: members[at] = rng.choice((name + 'x', '../' + name, 'x' * 300, rng.choice(members)[0])), content
    else: members.insert(at, (name, b''))
    return zipped(members)


def mutate_header(rng, data):
    "A safetensors file: its bytes, or the JSON of its header with the right length in front."
    if rng.random() < .5: return mutate_bytes(rng, data)
    size = int.from_bytes(data[:8], 'little')
    header = mutate_json(rng, data[8:8 + size])
    return len(header).to_bytes(8, 'little') + header + data[8 + size:]


def words_of(*tokens):
    "A mutation of words: some replaced, removed, added, or all of them new; now and then of their bytes."
    def mutate(rng, data):
        if rng.random() < .2: return mutate_bytes(rng, data)
        parts = re.findall(r'\w+|\W', data.decode())
        if rng.random() < .3: parts = [rng.choice(tokens) for _ in range(rng.randint(1, 9))]
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(parts) + 1)
            parts[at:at + rng.choice((0, 1, 1))] = rng.choice(([], [rng.choice(tokens)], [rng.choice(tokens)]))
        return ''.join(parts).encode('utf-8', 'surrogateescape')
    return mutate
