"""What several targets cost beside the deepest one alone, in one run.

    python tools/bench_targets.py [--rounds 31] [--batch 1] [--layers 12] [--width 512]

A teacher of DINOv2 and SigLIP with a language model of middle size, with random weights, in float32 on the CPU, on one
thread. In each round every set of targets is asked for beside the deepest layer alone, one right after the other, in
turn first and second. Times are of the processor, and a ratio is the median over the rounds, so that other processes
disturb them little. Exit status 1 where four layers × three poolings cost more than 3 % beyond the deepest layer alone.
"""
import argparse
import statistics
import sys
import time

import torch

from anchor_cache.config import Target, demo_data
from anchor_cache.layout import image_token_mask
from anchor_cache.teachers.backbones import BASE_MODELS, make_spec
from anchor_cache.teachers.prismatic_teacher import open_prismatic
from anchor_cache.teachers.prompts import fill, load_tokenizer
from anchor_cache.teachers.random_models import random_weights
from anchor_cache.teachers.source import Source

POOLINGS = ('mean_image_tokens', 'max_image_tokens', 'grid_4x4')
TEXT = ('mean_masked', 'mean_text', 'last_token')
ALLOWED = .03


def open_middle(layers, width):
    "A teacher of middle size, opened."
    tower = dict(depth=8, num_heads=6)
    vision = dict(dino=dict(tower, embed_dim=384), siglip=dict(tower, embed_dim=384))
    llm = dict(hidden_size=width, intermediate_size=width * 43 // 16, num_hidden_layers=layers,
               num_attention_heads=width // 64, num_key_value_heads=width // 64)
    spec = make_spec(BASE_MODELS['prism-dinosiglip-224px+7b'], 32_064, vision, llm)
    source = Source('middle', 'native', spec, random_weights(spec), [demo_data('tokenizer')])
    return open_prismatic(source, load_tokenizer(demo_data('tokenizer')), demo_data('tokenizer'))


def four_layers(last, poolings):
    "Targets at the deepest layer and three above it, evenly apart."
    return [Target(f'L{round(last * k / 4)}', pooling) for k in (4, 3, 2, 1) for pooling in poolings]


def compared(last, towers):
    "Name → the deepest layer's one target, and those beside it; all of them read the same tokens."
    wide = four_layers(last, POOLINGS)
    patches = [Target(point, pooling) for point in ('projector', *towers) for pooling in POOLINGS]
    return {'four layers × three poolings': (wide[:1], wide),
            'and projector and towers': (wide[:1], wide + patches),
            'with the text': ([Target(f'L{last}', 'mean_masked')], four_layers(last, TEXT))}


def seconds(ask, targets):
    "What one forward takes of the processor."
    begun = time.process_time()
    ask(targets)
    return time.process_time() - begun


def measure(ask, alone, several, rounds):
    "Seconds of the one target and of several, a pair for each round."
    pairs = []
    for k in range(rounds + 1):
        first, second = (alone, several) if k % 2 else (several, alone)
        spent = {id(targets): seconds(ask, targets) for targets in (first, second)}
        pairs.append((spent[id(alone)], spent[id(several)]))
    return pairs[1:]  # the first round warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(rounds=31, batch=1, layers=12, width=512).items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_middle(args.layers, args.width)
    last = args.layers - 1  # layer -2
    teacher = opened.load(last)
    torch.manual_seed(0)
    pixels = teacher.pixel_values(torch.randint(256, (args.batch, 224, 224, 3), dtype=torch.uint8))
    ids = [teacher.encode(fill(teacher.prompt, 'put the bowl on the plate'))] * args.batch
    masks = [image_token_mask(len(i), teacher.layout) for i in ids]
    def ask(targets): return teacher.answers(pixels, ids, masks, targets)
    print(f'batch of {args.batch}, {args.layers} layers of {args.width}, {len(ids[0])} tokens of text, '
          f'{args.rounds} rounds, float32')
    ratios = {}
    for name, (alone, several) in compared(last, opened.towers).items():
        pairs = measure(ask, alone, several, args.rounds)
        one, many = (statistics.median(times) for times in zip(*pairs))
        ratios[name] = statistics.median(many / one for one, many in pairs)
        print(f'{name:30} {len(several):2} targets {many:.3f} s, the deepest alone {one:.3f} s: '
              f'ratio {ratios[name]:.3f}')
    cost = ratios['four layers × three poolings'] - 1
    print(f'four layers × three poolings cost {cost:+.1%} beyond the deepest one alone; {ALLOWED:.0%} are allowed')
    return int(cost > ALLOWED)


if __name__ == '__main__':
    sys.exit(main())
