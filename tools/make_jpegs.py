"""Draw the small JPEGs on which two decoders are compared (nbs/data/04_jpeg.ipynb), with Pillow.

    python tools/make_jpegs.py anchor_cache/demo_data/jpegs

Another version of Pillow may write other bytes; then the hashes in the notebook are made anew as well.
"""
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SUBSAMPLINGS = {'444': 0, '422': 1, '420': 2, 'grey': -1}
PICTURES = {  # height, width, quality, and other options of Pillow
    'even': (32, 48, 95, {}),
    'odd': (37, 53, 75, {}),
    'low': (41, 35, 5, {}),
    'high': (19, 34, 100, {}),
    'tiny': (3, 2, 90, {}),
    'restarts': (25, 70, 85, dict(restart_marker_blocks=2)),
}


def picture(height, width, rng):
    "Waves, edges and noise in other colours everywhere: (height, width, 3), uint8."
    y, x = np.mgrid[:height, :width]
    waves = 127 + 120 * np.sin(x / 3 + y / 9), 127 + 120 * np.cos(y / 4 - x / 17), (x // 5 + y // 7) % 2 * 255
    return np.clip(np.stack(waves, -1) + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def main(folder):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for subsampling, code in SUBSAMPLINGS.items():
        for name, (height, width, quality, options) in PICTURES.items():
            image = Image.fromarray(picture(height, width, rng))
            if code < 0: image = image.convert('L')
            else: options = dict(options, subsampling=code)
            image.save(folder/f'{subsampling}_{name}.jpg', quality=quality, **options)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
