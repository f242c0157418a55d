"""The files of teachers, for fuzz.py: checkpoints, configurations, weights, adapters and tokenizers."""
import functools
import importlib
import io
import json
import shutil

import fuzz_mutations as change
import numpy as np
import torch
from fuzz_base import Kind, digest, in_file, kept, message
from safetensors.torch import save_file

from anchor_cache.config import demo_data
from anchor_cache.teachers import prismatic_teacher
from anchor_cache.teachers.huggingface import hf_source
from anchor_cache.teachers.native import native_source
from anchor_cache.teachers.policy import policy_source
from anchor_cache.teachers.prompts import (
    PROMPTS,
    check_first_token,
    check_llama_tokens,
    fill,
    load_tokenizer,
    tokenize,
    tokenizer_fingerprint,
)
from anchor_cache.teachers.random_models import (
    write_byte_tokenizer,
    write_random_adapter,
    write_random_model,
    write_random_run,
)
from anchor_cache.teachers.weights import load_weight

TOWER = dict(embed_dim=16, depth=2, num_heads=2)
DIMS = dict(vision=dict(siglip=TOWER, dino=TOWER), llm=dict(
    model_type='llama', hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2))
VOCABULARY = 400  # pieces
TOWER_FILE = 'vit_so400m_patch14_siglip_224.webli.safetensors'


def remember_models():
    "Make the meta model of a specification once in a row: most damaged files still ask for the same one."
    @functools.lru_cache(4)
    def remembered(key): return make(specs.pop())
    specs, make = [], prismatic_teacher.meta_model
    def meta_model(spec):
        try: key = repr(spec)
        except RecursionError: return make(spec)
        specs[:] = [spec]
        return remembered(key)
    prismatic_teacher.meta_model = meta_model


def prepare():
    "Import what is slow to import, on one thread; TensorFlow is imported by the workers, which it does not survive."
    torch.set_num_threads(1)
    for name in ('pandas', 'sentencepiece', 'timm', 'transformers'): importlib.import_module(name)
    remember_models()


class Bos:
    "A tokenizer that begins each prompt with `<s>`."
    def __len__(self): return 3
    def get_vocab(self): return {'<unk>': 0, '<s>': 1, '</s>': 2}
    def __call__(self, prompt, add_special_tokens=True): return dict(input_ids=[1, 2])
    def convert_ids_to_tokens(self, ids): return ['<s>'] * len(ids) if isinstance(ids, list) else '<s>'


def teacher(folder, source):
    "What is read of a teacher that `source` opens: its specification, and each weight as it is computed with."
    write_byte_tokenizer(folder/'tokenizer')
    def read():
        opened = prismatic_teacher.open_prismatic(source(), Bos(), folder/'tokenizer')
        identity, own = opened.identity(), opened.source
        used = {n: load_weight(t, n, torch.float32, 'cpu', own.changes.get(n, lambda t: t))
                for n, t in own.weights.items()}
        return digest((repr(opened.spec), opened.num_layers, used)), kept(folder, identity)
    return read


def native(name):
    "A file of a run folder: the checkpoint, or a JSON file."
    def open_kind(folder):
        path = write_random_run(folder/'run', 'siglip-224px+7b', DIMS, VOCABULARY)
        config = json.loads((folder/'run'/'config.json').read_text())
        (folder/'run'/'config.json').write_text(json.dumps(dict(config, text_config=DIMS['llm'])))
        return in_file(folder/'run'/name if name else path, teacher(folder, lambda: native_source(str(path))))
    return open_kind


def base_config(folder):
    "The `config.json` of a base model's run, which names its parts."
    data, read = native('config.json')(folder)
    parts = dict(vision_backbone_id='siglip-vit-so400m', arch_specifier='no-align+gelu-mlp',
                 llm_backbone_id='vicuna-v15-7b', image_resize_strategy='resize-naive', model_id='siglip-224px+7b')
    return json.dumps(dict(json.loads(data), model=parts)).encode(), read


def towers(folder):
    "The pretrained tower of a checkpoint that was trained with a frozen one."
    path = write_random_run(folder/'run', 'siglip-224px+7b', DIMS, VOCABULARY)
    saved, own = torch.load(path), 'featurizer.'
    tower = {n.removeprefix(own): t.float() for n, t in saved['model'].pop('vision_backbone').items()}
    torch.save(saved, path)
    save_file(tower, folder/TOWER_FILE)
    return in_file(folder/TOWER_FILE, teacher(
        folder, lambda: native_source(str(path), vision_backbone_path=str(folder))))


def hugging_face(name, files=1):
    "A file of a model folder in Hugging Face format."
    def open_kind(folder):
        model = write_random_model(folder/'model', 'siglip-224px+7b', DIMS, VOCABULARY, files=files)
        return in_file(model/name, teacher(folder, lambda: hf_source(model, 'model')))
    return open_kind


def adapter(name):
    "A file of a LoRA adapter."
    def open_kind(folder):
        base = write_random_model(folder/'model', 'prism-dinosiglip-224px+7b', DIMS, VOCABULARY)
        lora = write_random_adapter(folder/'adapter', base)
        path = lora/'adapter_config.json'
        path.write_text(json.dumps(dict(
            json.loads(path.read_text()), base_model_name_or_path='base', alpha_pattern={'projector.fc1': 8})))
        return in_file(lora/name, teacher(folder, lambda: policy_source(str(lora), str(base))))
    return open_kind


def tokens(folder, first):
    "What is read of a tokenizer's folder: the ids of each prompt."
    tokenizer = load_tokenizer(folder)
    check_first_token(tokenizer, PROMPTS['phi' if first != '<s>' else 'pure'], first, folder)
    prompts = [fill(p, 'Put the moka pot on the stove, 日本 \0') for p in PROMPTS.values()]
    return digest([tokenize(p, tokenizer) for p in prompts]), tokenizer_fingerprint(folder)


def byte_tokenizer(name):
    def open_kind(folder):
        write_byte_tokenizer(folder/'tokenizer')
        return in_file(folder/'tokenizer'/name, lambda: tokens(folder/'tokenizer', '<|endoftext|>'))
    return open_kind


def llama_tokenizer(folder):
    "The demo's tokenizer, of Llama's kind."
    shutil.copytree(demo_data('tokenizer'), folder/'tokenizer')
    return in_file(folder/'tokenizer'/'tokenizer.json', lambda: tokens(folder/'tokenizer', '<s>'))


def sentencepiece_model(folder):
    "A small SentencePiece model, alone in its folder."
    import sentencepiece
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*PROMPTS.values()] * 20), model_writer=out, vocab_size=340, model_type='bpe',
        byte_fallback=True, hard_vocab_limit=False, normalization_rule_name='identity', minloglevel=2)
    (folder/'tokenizer').mkdir()
    (folder/'tokenizer'/'tokenizer.model').write_bytes(out.getvalue())
    return in_file(folder/'tokenizer'/'tokenizer.model', lambda: tokens(folder/'tokenizer', '<s>'))


def llama_pieces():
    "The SentencePiece model of the demo's tokenizer: its vocabulary, and the order of its merges as scores."
    model = json.loads(demo_data('tokenizer', 'tokenizer.json').read_text())['model']
    order = {merge.replace(' ', ''): -n for n, merge in enumerate(model['merges'])}
    def piece(text, n):
        kind = 2 if n == 0 else 3 if n < 3 else 6 if n < 259 else 1  # unknown, control, byte, normal
        score = np.float32(order.get(text, -1e6) if kind == 1 else 0).tobytes()
        return message(1, message(1, text.encode()) + b'\x15' + score + b'\x18' + bytes([kind]))
    pieces = b''.join(piece(text, n) for text, n in model['vocab'].items())
    trainer = b'\x18\x02\x98\x02\x01'  # BPE, byte_fallback
    return pieces + message(2, trainer) + message(3, message(1, b'identity') + b'\x18\x01\x20\x00\x28\x01')


def sentencepiece_beside(folder):
    "A `tokenizer.model` beside the `tokenizer.json` of Llama's kind: both must give the same tokens."
    tokenizer = load_tokenizer(demo_data('tokenizer'))
    path = folder/'tokenizer.model'
    path.write_bytes(llama_pieces())
    def read():
        check_llama_tokens(tokenizer, folder)
        return 0, 0  # it is compared and not used
    return in_file(path, read)


# A share of the cases where one takes 10 to 100 ms: weights are read, or the modules of another architecture made
TEACHERS = {
    'checkpoint': Kind(native(''), share=0.2),
    'checkpoint pickle': Kind(native(''), change.mutate_zip, share=0.2),
    'config': Kind(native('config.json'), change.mutate_json, share=0.1),
    'base config': Kind(base_config, change.mutate_json, share=0.1),
    'dims': Kind(native('dims.json'), change.mutate_json, share=0.1),
    'safetensors': Kind(hugging_face('model.safetensors'), change.mutate_header, share=0.2),
    'towers': Kind(towers, change.mutate_header, share=0.1),
    'safetensors index': Kind(hugging_face('model.safetensors.index.json', files=2), change.mutate_json, share=0.2),
    'hf config': Kind(hugging_face('config.json'), change.mutate_json, share=0.1),
    'preprocessor': Kind(hugging_face('preprocessor_config.json'), change.mutate_json, share=0.1),
    'adapter config': Kind(adapter('adapter_config.json'), change.mutate_json, share=0.1),
    'adapter': Kind(adapter('adapter_model.safetensors'), change.mutate_header, share=0.2),
    'tokenizer': Kind(byte_tokenizer('tokenizer.json'), change.mutate_json, share=0.5),
    'tokenizer config': Kind(byte_tokenizer('tokenizer_config.json'), change.mutate_json, share=0.5),
    'llama tokenizer': Kind(llama_tokenizer, change.mutate_json, share=0.05),
    'sentencepiece': Kind(sentencepiece_model),
    'sentencepiece beside': Kind(sentencepiece_beside, share=0.2),
}
