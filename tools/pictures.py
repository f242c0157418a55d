"""Draw the picture of the README, what a cache is, from the first record of a demo's cache.

    python tools/pictures.py     writes nbs/pictures/what_a_cache_is.png
"""
import tempfile
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from anchor_cache.demo import run_demo
from anchor_cache.inspection import Cache
from anchor_cache.layout import KINDS, token_kinds

OUT = Path(__file__).resolve().parent.parent/'nbs'/'pictures'/'what_a_cache_is.png'
INK, QUIET, PALE, FEATURE = '#1f2933', '#616e7c', '#eef1f4', '#7b4fa3'
ENDS, WIDTH = 3, .34  # patches drawn at each end of their row; width of a token


def first_sample(folder):
    "The first record of a demo's cache."
    run_demo(str(folder), progress=False)
    return Cache(folder/'cache')[0]


def text(ax, x, y, words, size=9, **how):
    ax.text(x, y, words, **dict(size=size, color=INK, ha='center', va='center') | how)


def box(ax, x, y, width, height, words, fill=PALE, edge=QUIET, **how):
    "A box with words in its middle."
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle='round,pad=0,rounding_size=.12', fc=fill, ec=edge,
                                lw=1))
    text(ax, x + width / 2, y + height / 2, words, **how)


def arrow(ax, start, end):
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=12, color=QUIET, lw=1.3, shrinkA=0,
                                 shrinkB=0))


def tokens(ax, sample, x, y):
    "The row of tokens, above it their hidden states and the mask; gives where the patches begin and end, and the row."
    mask = sample.record['model_inputs']['attention_mask']
    kinds, image = token_kinds(mask, sample.layout), sample.layout.image
    pieces = [*sample.pieces[:image.start], *[f'patch {i}' for i in range(sample.layout.num_patches)],
              *sample.pieces[image.start:]]
    shown = [*range(image.start + ENDS), None, *range(image.stop - ENDS, len(kinds))]
    where = {}
    for n, position in enumerate(shown):
        left = x + WIDTH * n
        if position is None:
            for level in (y + .55, y + 1.75): text(ax, left + WIDTH / 2, level, '…')
            continue
        color, pooled = KINDS[kinds[position]], image.start <= position < image.stop
        ax.add_patch(Rectangle((left, y), WIDTH * .86, 1.1, color=color, lw=0))
        text(ax, left + WIDTH * .43, y + .55, pieces[position].replace('▁', ' ').replace('<0x0A>', '↵').strip() or '␣',
             6.5, rotation=90, color='white')
        ax.add_patch(Rectangle((left, y + 1.45), WIDTH * .86, .6, fc=FEATURE if pooled else 'white', ec=FEATURE, lw=.8))
        where[position] = left
    return where[image.start], where[image.stop - 1] + WIDTH * .86, x + WIDTH * len(shown)


def draw(sample):
    "A figure: a frame and its instruction, the teacher once, the pooled vector, the shard, the loss."
    figure = Figure(figsize=(12, 3.9), dpi=110, facecolor='white')
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-.3, 24.5), ylim=(.9, 8.6))
    ax.axis('off')
    ax.imshow(sample.image.numpy(), extent=(.5, 3.7, 4.6, 7.8), aspect='auto', zorder=2)
    text(ax, 2.1, 8.2, 'a frame of a dataset', 9.5, weight='bold')
    text(ax, 2.1, 3.6, '\n'.join(textwrap.wrap(f'“{sample.instruction}”', 24)), 9, style='italic')
    first, last, end = tokens(ax, sample, 5.2, 3.2)
    text(ax, (5.2 + end) / 2, 8.2, 'a frozen teacher reads it once, offline', 9.5, weight='bold')
    text(ax, 5.2, 2.75, 'BOS, image patches, the prompt', 8.5, ha='left', color=QUIET)
    text(ax, end, 5.75, 'hidden states of one layer;\nthe mask keeps the image tokens', 8.5, ha='right', va='bottom',
         color=FEATURE)
    arrow(ax, (3.9, 5.6), (5.05, 4.6))
    arrow(ax, (3.9, 3.6), (5.05, 3.8))
    middle = (first + last) / 2
    ax.plot([first, first, last, last], [5.5, 5.65, 5.65, 5.5], color=FEATURE, lw=1.2)
    arrow(ax, (middle, 5.65), (middle, 6.45))
    target = sample.record['target_features']
    ax.imshow(target[None].float().numpy(), extent=(middle - 1.5, middle + 1.5, 6.55, 6.95), aspect='auto',
              cmap='PuOr', zorder=2)
    text(ax, middle + 1.65, 6.75, 'their mean: one vector', 8.5, ha='left', color=FEATURE)
    left = end + 1.1
    arrow(ax, (end + .15, 4.5), (left - .1, 4.5))
    box(ax, left, 2.6, 3.4, 4.4, '')
    text(ax, left + 1.7, 8.2, 'a cache: .pt shards', 9.5, weight='bold')
    for n, words in enumerate(('input_ids', 'attention_mask', 'pixel_values', 'image_token_mask')):
        text(ax, left + 1.7, 6.5 - .65 * n, words, 8.5, family='monospace')
    box(ax, left + .2, 2.9, 3, .8, 'target_features', FEATURE, FEATURE, color='white', size=8.5, family='monospace')
    arrow(ax, (left + 3.5, 4.5), (left + 4.4, 4.5))
    box(ax, left + 4.5, 2.6, 24 - left - 4.9, 4.4,
        'the student\nreads the\nsame inputs;\nthe loss is its\ndistance to\nthe vector')
    text(ax, (left + 4.5 + 23.6) / 2, 8.2, 'training, no teacher', 9.5, weight='bold')
    text(ax, 12, 1.5, 'Offline, once for each frame, and the same bytes every time   →   '
         'in training, as often as you like', 9.5, color=QUIET)
    return figure


if __name__ == '__main__':
    OUT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder: draw(first_sample(Path(folder))).savefig(OUT)
    print(OUT)
