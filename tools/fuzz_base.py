"""What every kind of file for fuzz.py has: how it is opened, and how what is read of it is compared.

A kind is opened in a folder and gives the bytes of its file and a function of other bytes. That function puts them
where the file was and gives (content, identity): what a build would use of it, and what the manifest or a sidecar
would say of it. It raises `UserError` where the package refuses the file.
"""
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_mutations as change
import numpy as np
import torch

from anchor_cache.config import read_json
from anchor_cache.manifests import json_bytes, manifest_differences

Read = Callable[[bytes], tuple[Any, Any]]  # (content, identity) of a file's bytes; raises `UserError`


@dataclasses.dataclass(frozen=True)
class Kind:
    "A kind of file, or of words."
    open: Callable[[Path], tuple[bytes, Read]]
    mutate: Callable[[Any, bytes], bytes] = change.mutate_bytes
    share: float = 1  # of the cases that are asked for: less where one takes long
    explained: str = ''  # why content may change under an equal identity


def digest(value):
    "A hash of nested values with tensors and arrays in them, types included."
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().as_strided((value.numel(),), (1,))  # whatever the stride of a single one
        return digest((str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()))
    if isinstance(value, np.ndarray): value = (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict): value = sorted((repr(k), digest(v)) for k, v in value.items())
    elif isinstance(value, (list, tuple)): value = type(value), [digest(v) for v in value]
    return hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode('utf-8', 'replace')).hexdigest()


def in_file(path, read):
    "The bytes of a file, and a function that replaces them, as another file of that name, and reads it."
    def put(data):
        path.unlink(missing_ok=True)  # a file that is still mapped stays as it was
        path.write_bytes(data)
        return read()
    return path.read_bytes(), put


def kept(folder, identity):
    "The bytes that a manifest holds of an identity; equal to itself when a build is resumed."
    path = folder/'identity.json'
    path.write_bytes(json_bytes(identity))
    if faults := manifest_differences(identity, read_json(path)): raise RuntimeError(f'never the same: {faults}')
    return digest(path.read_bytes())


def message(number, data):
    "A length-delimited field of a protocol buffer."
    def varint(n): return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
    return varint(number << 3 | 2) + varint(len(data)) + data
