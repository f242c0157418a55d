"""What the original's libraries save and compute: names and shapes at full size, features of small random models.

OpenVLA, prismatic-vlms and openvla-mini pin timm 0.9.10 and transformers 4.40.1 (4.38 or later for prismatic-vlms).
This script runs on those, beside today's torch, and writes nbs/checks/original/keys.json and
nbs/checks/original/features.safetensors, which nbs/checks/original.ipynb compares with this package:

    pip install --no-deps --target /tmp/original timm==0.9.10 transformers==4.40.1 tokenizers==0.19.1 \\
      huggingface_hub==0.23.4
    PYTHONPATH=/tmp/original:. OMP_NUM_THREADS=1 python tools/original.py

Its tables are written here once more, from the original registries, and its forward is written out as the original's
is: nothing of this package takes part but the random numbers and the small dimensions, which are its input.
"""
import hashlib
import json
from pathlib import Path

import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from anchor_cache.teachers.random_models import fill_random, tiny_dims

OUT = Path(__file__).resolve().parent.parent/'nbs'/'checks'/'original'

DINO, IN1K = 'vit_large_patch14_reg4_dinov2.lvd142m', 'vit_large_patch16_224.augreg_in21k_ft_in1k'
SIGLIP, SIGLIP_384 = 'vit_so400m_patch14_siglip_224', 'vit_so400m_patch14_siglip_384'
VISION = {  # name in the registry: image size, kind → timm model
    'clip-vit-b': (224, dict(clip='vit_base_patch16_clip_224.openai')),
    'clip-vit-l': (224, dict(clip='vit_large_patch14_clip_224.openai')),
    'clip-vit-l-336px': (336, dict(clip='vit_large_patch14_clip_336.openai')),
    'siglip-vit-b16-224px': (224, dict(siglip='vit_base_patch16_siglip_224')),
    'siglip-vit-b16-256px': (256, dict(siglip='vit_base_patch16_siglip_256')),
    'siglip-vit-b16-384px': (384, dict(siglip='vit_base_patch16_siglip_384')),
    'siglip-vit-so400m': (224, dict(siglip=SIGLIP)),
    'siglip-vit-so400m-384px': (384, dict(siglip=SIGLIP_384)),
    'dinov2-vit-l': (224, dict(dino=DINO)),
    'in1k-vit-l': (224, dict(in1k=IN1K)),
    'dinoclip-vit-l-336px': (336, dict(dino=DINO, clip='vit_large_patch14_clip_336.openai')),
    'dinosiglip-vit-so-224px': (224, dict(dino=DINO, siglip=SIGLIP)),
    'dinosiglip-vit-so-384px': (384, dict(dino=DINO, siglip=SIGLIP_384))}

LLAMA, MISTRAL = (LlamaConfig, LlamaForCausalLM), (MistralConfig, MistralForCausalLM)
PHI, QWEN = (PhiConfig, PhiForCausalLM), (Qwen2Config, Qwen2ForCausalLM)


def sizes(hidden_size, intermediate_size, layers, heads, kv_heads, vocab_size, **other):
    return dict(hidden_size=hidden_size, intermediate_size=intermediate_size, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab_size, **other)


LLAMA_7B = sizes(4096, 11008, 32, 32, 32, 32064, rms_norm_eps=1e-5)
LLAMA_13B = sizes(5120, 13824, 40, 40, 40, 32064, rms_norm_eps=1e-5)
MISTRAL_7B = sizes(4096, 14336, 32, 32, 8, 32064, rms_norm_eps=1e-5)
PHI_2 = sizes(2560, 10240, 32, 32, 32, 50304, partial_rotary_factor=.4)
QWEN_05B = sizes(896, 4864, 24, 14, 2, 151680, tie_word_embeddings=True, rope_theta=1e6)
LANGUAGE = {  # name in the registry: classes, configuration with the vocabulary that Prismatic rounds up to
    'llama2-7b-pure': (LLAMA, LLAMA_7B),
    'llama2-13b-pure': (LLAMA, LLAMA_13B),
    'llama2-7b-chat': (LLAMA, LLAMA_7B),
    'llama2-13b-chat': (LLAMA, LLAMA_13B),
    'vicuna-v15-7b': (LLAMA, LLAMA_7B),
    'vicuna-v15-13b': (LLAMA, LLAMA_13B),
    'mistral-v0.1-7b-pure': (MISTRAL, MISTRAL_7B),
    'mistral-v0.1-7b-instruct': (MISTRAL, MISTRAL_7B), 'phi-2-3b': (PHI, PHI_2), 'qwen25-0_5b-pure': (QWEN, QWEN_05B),
    'qwen25-0_5b-extra': (QWEN, dict(QWEN_05B, vocab_size=151936)),
    'qwen25-1_5b-pure': (QWEN, sizes(1536, 8960, 28, 12, 2, 151680, tie_word_embeddings=True, rope_theta=1e6)),
    'qwen25-3b-pure': (QWEN, sizes(2048, 11008, 36, 16, 2, 151680, tie_word_embeddings=True, rope_theta=1e6)),
    'qwen25-7b-pure': (QWEN, sizes(3584, 18944, 28, 28, 4, 151680, rope_theta=1e6))}

FAMILIES = {  # base model: vision, projector, language
    'prism-dinosiglip-224px+7b': ('dinosiglip-vit-so-224px', 'fused', 'llama2-7b-pure'),
    'siglip-224px+7b': ('siglip-vit-so400m', 'mlp', 'vicuna-v15-7b'),
    'in1k-224px+7b': ('in1k-vit-l', 'mlp', 'vicuna-v15-7b'),
    'clip-224px+7b': ('clip-vit-l', 'mlp', 'vicuna-v15-7b'),
    'dinov2-224px+7b': ('dinov2-vit-l', 'mlp', 'vicuna-v15-7b'),
    'dinoclip-336px-resize-naive+7b': ('dinoclip-vit-l-336px', 'fused', 'vicuna-v15-7b'),
    'mistral-v0.1+7b': ('clip-vit-l-336px', 'mlp', 'mistral-v0.1-7b-pure'),
    'phi-2+3b': ('clip-vit-l-336px', 'mlp', 'phi-2-3b'),
    'prism-qwen25-extra-dinosiglip-224px+0_5b': ('dinosiglip-vit-so-224px', 'fused', 'qwen25-0_5b-extra')}
IDS, VOCABULARY = [1, 20, 30, 40, 7, 9], 64


def towers(vision, dims=None):
    "timm models as the original makes them, by kind."
    size, names = VISION[vision]
    # clip_vit.py gives OpenAI's models quick GELU; dinoclip_vit.py names no activation
    act = dict(act_layer='quick_gelu') if list(names) == ['clip'] else {}
    def make(kind, name):
        dimensions = (dims or {}).get(kind, {})
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=size, **act, **dimensions)
    return {kind: make(kind, name) for kind, name in names.items()}


def listing(tensors):
    "What is compared of names and shapes."
    lines = sorted(f'{name} {tuple(t.shape)}' for name, t in tensors.items())
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    return dict(tensors=len(lines), parameters=sum(t.numel() for t in tensors.values()), sha256=digest)


def keys():
    "Names and shapes that each part would save at full size, and timm's evaluation transform of each tower."
    parts, linspace = {}, torch.linspace
    # timm 0.9 reads the values of a linspace, and the meta device has none
    torch.linspace = lambda *args, **kwargs: linspace(*args, **{**kwargs, 'device': 'cpu'})
    with torch.device('meta'):
        for name, (_, kinds) in VISION.items():
            models = towers(name)
            prefix = {kind: f'{kind}_featurizer.' if len(kinds) > 1 else 'featurizer.' for kind in kinds}
            parts[name] = listing({prefix[k] + n: t for k, m in models.items() for n, t in m.state_dict().items()})
            shown = ('mean', 'std', 'interpolation', 'crop_pct')
            parts[name]['transforms'] = {k: {c: m.pretrained_cfg[c] for c in shown} for k, m in models.items()}
        for name, ((config, model), dims) in LANGUAGE.items():
            parts[name] = listing({f'llm.{n}': t for n, t in model(config(**dims)).state_dict().items()})
    torch.linspace = linspace
    return parts


def features(base, dtype):
    "Hidden states of a small random model, pooled both ways: (layers + 1, hidden size) each."
    vision, kind, language = FAMILIES[base]
    dims, ((config, model), full) = tiny_dims(language), LANGUAGE[language]
    small = {k: v for k, v in dims['llm'].items() if k != 'model_type'}
    configuration = config(**{**full, **small, 'vocab_size': VOCABULARY}, attn_implementation='eager')
    seen, llm = towers(vision, dims['vision']), model(configuration)
    wide, hidden = sum(m.embed_dim for m in seen.values()), small['hidden_size']
    layers = [wide, 4 * wide, hidden, hidden] if kind == 'fused' else [wide, hidden, hidden]
    projector = nn.Sequential(*[m for a, b in zip(layers, layers[1:]) for m in (nn.Linear(a, b), nn.GELU())][:-1])
    name = lambda k: f'vision_backbone.{k}_featurizer.' if len(seen) > 1 else 'vision_backbone.featurizer.'
    parts = {**{name(k): m for k, m in seen.items()}, 'projector.projector.': projector, 'llm_backbone.llm.': llm}
    weights = fill_random({p + n: t.shape for p, m in parts.items() for n, t in m.state_dict().items()})
    if full.get('tie_word_embeddings'):
        weights['llm_backbone.llm.lm_head.weight'] = weights['llm_backbone.llm.model.embed_tokens.weight']
    for prefix, module in parts.items():
        module.load_state_dict({n: weights[prefix + n] for n in module.state_dict()})
        module.to(dtype).eval()
    size, generator = VISION[vision][0], torch.Generator().manual_seed(11)
    patches = []
    for m in seen.values():
        pixels = torch.randn(1, 3, size, size, generator=generator).to(dtype)
        patches.append(m.get_intermediate_layers(pixels, n={len(m.blocks) - 2})[0])
    patches, text = projector(torch.cat(patches, dim=2)), llm.get_input_embeddings()(torch.tensor([IDS]))
    embedded = torch.cat([text[:, :1], patches, text[:, 1:]], dim=1)
    attention = torch.ones(embedded.shape[:2], dtype=torch.bool)
    states = llm(inputs_embeds=embedded, attention_mask=attention, output_hidden_states=True).hidden_states
    image = slice(1, 1 + patches.shape[1])
    return {f'{base}/{str(dtype)[6:]}/mean_image_tokens': torch.stack([s[0, image].float().mean(0) for s in states]),
            f'{base}/{str(dtype)[6:]}/mean_masked': torch.stack([s[0].float().mean(0) for s in states])}


if __name__ == '__main__':
    OUT.mkdir(exist_ok=True)
    made_with = dict(timm=timm.__version__, transformers=transformers.__version__, torch=torch.__version__)
    (OUT/'keys.json').write_text(json.dumps(dict(made_with=made_with, parts=keys()), indent=1, sort_keys=True) + '\n')
    with torch.no_grad():
        made = [features(base, dtype) for base in FAMILIES for dtype in (torch.float32, torch.bfloat16)]
    save_file({n: t for m in made for n, t in m.items()}, OUT/'features.safetensors')
    print(made_with, f'{len(made)} models')
