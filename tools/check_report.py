"""Make the report of a cache and use it in headless Chromium: hover, keyboard, both themes, a telephone, paper.

    python tools/check_report.py [FILE] [--screenshots DIR] [--records N] [--dim D]

Without FILE the report is that of a cache made here: real LIBERO frames, made-up features, one hostile instruction.
Exit status 1 for an error in the console, a request to anywhere, a page wider than its window, or a tooltip, picture or
mark that does not appear. Where there is no Chromium it says SKIPPED, with status 0.
"""
import argparse
import resource
import sys
import tempfile
import time
import zlib
from pathlib import Path

from browser import find_chromium, open_page

TEMPLATE = 'In: What action should the robot take to {instruction}?\nOut:'
HOSTILE = '</script><img src="https://example.com/x.png" onerror="alert(1)"> $$\\frac{1}{2}$$ <b>put it down</b>'
TASKS, LENGTH = 11, 40  # and steps of an episode


def demo_frames():
    "Images and instructions of the demo's LIBERO episodes, by episode."
    import torch

    from anchor_cache.config import demo_data
    from anchor_cache.data.rlds import RldsFrames
    frames, episodes = RldsFrames(str(demo_data('rlds')), 'libero_90'), {}
    for i in range(len(frames)):
        image = torch.from_numpy(frames.image(i, 224).copy())
        episodes.setdefault(frames.where(i)['episode'], []).append((image, frames.instruction(i)))
    return list(episodes.values())


def samples_of(count, episodes):
    "The samples of a cache, in order, each with its image and the number of its task."
    more = '', ' slowly', ' with the left arm'
    for n in range(count):
        episode, step = divmod(n, LENGTH)
        task = episode % TASKS
        real = episodes[task % len(episodes)]
        image, words = real[step * len(real) // LENGTH]
        words = HOSTILE if task == TASKS - 1 else words + more[task // len(episodes)]
        yield dict(dataset='libero_90', episode=episode, step=step, frame=n, prompt_template=TEMPLATE,
                   instruction=words), image, task


def made_features(rows, dim):
    "Features that know the task and the step, with one dimension that is much larger than the others."
    import torch
    chance = torch.Generator().manual_seed(3)
    centres, along = torch.randn(TASKS, dim, generator=chance), torch.randn(2, dim, generator=chance)
    scale = torch.randn(dim, generator=chance).mul(.6).exp()
    tasks = torch.tensor([task for *_, task in rows])
    steps = torch.tensor([sample['step'] for sample, *_ in rows])[:, None] / LENGTH
    noise = torch.randn(len(rows), dim, generator=chance.manual_seed(rows[0][0]['frame']))
    features = scale * (centres[tasks] + (3 * steps).sin() * along[0] + steps * along[1] + .35 * noise)
    features[:, dim // 3] += .8 * dim ** .5 * 10
    return features


def write_cache(folder, count, dim, shard_size=2048):
    "A cache of schema 2 in a new folder, without a teacher."
    import torch

    from anchor_cache.caches import Cache, complete, open_cache, store_shard
    from anchor_cache.layout import TokenLayout, image_token_mask
    from anchor_cache.manifests import frames_sha256
    from anchor_cache.shards import Schema2Builder
    from anchor_cache.stores import LocalStore
    target = dict(name='L31.mean_image_tokens', layer=31, pooling='mean_image_tokens', shape=[dim])
    transform = dict(name='resize-naive', size=224, towers=dict(siglip=dict(mean=[.5] * 3, std=[.5] * 3, crop=1.)))
    counts = [min(shard_size, count - start) for start in range(0, count, shard_size)]
    choices = dict(num_samples=count, shard_size=shard_size, dtype='float16', split='train', targets=[target['name']],
                   pixels='uint8', seed=7, dataset='libero_90')
    manifest = dict(format='anchor_cache', schema_version=2, prompt_templates=[TEMPLATE], shards=counts,
                    choices=choices, plan_sha256=frames_sha256(list(range(count))), targets=[target],
                    image_transform=transform,
                    teacher=dict(name='made-up', kind='huggingface', num_patches=256, hidden_dim=dim, num_layers=32))
    cache, rows = Cache(LocalStore(folder), manifest, list(range(count))), list(samples_of(count, demo_frames()))
    for k in open_cache(cache):
        mine = rows[k * shard_size:k * shard_size + counts[k]]
        builder = Schema2Builder(len(mine), [target], 'float16', 'uint8', transform, 'made-up', 'train')
        features = made_features(mine, dim)
        for start in range(0, len(mine), 256):
            part = mine[start:start + 256]
            words = [sample['instruction'].lower().split() for sample, *_ in part]
            ids = [torch.tensor([1, *(1000 + zlib.crc32(w.encode()) % 30000 for w in ws), 29871]) for ws in words]
            builder.add(ids, [image_token_mask(len(i), TokenLayout(num_patches=256)) for i in ids],
                        torch.stack([image for _, image, _ in part]), {target['name']: features[start:start + 256]},
                        [sample for sample, *_ in part])
        store_shard(cache, k, builder.shard(), [sample for sample, *_ in mine])
    complete(cache)
    cache.hold.close()
    return folder


def must(holds, what):
    "Raise `AssertionError` with what was expected."
    if not holds: raise AssertionError(what)
    print('  ok', what)


def opened(watched, file):
    "The page, when its charts are drawn; it must not be wider than its window."
    page = watched.page
    page.goto(file.resolve().as_uri())
    page.wait_for_selector('html[data-ready]')
    page.wait_for_timeout(300)
    wide, window = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
    must(wide <= window, f'no wider than its window of {window} pixels')
    return page


def point_at(page):
    "Move over the map until a tooltip shows; whether it has a picture, and its text."
    page.locator('#map').scroll_into_view_if_needed()
    page.locator('#chart-map').scroll_into_view_if_needed()
    box = page.locator('#chart-map').bounding_box()
    for row in range(8, 30):
        for column in range(8, 40):
            x, y = box['x'] + box['width'] * column / 42, box['y'] + box['height'] * row / 34
            if not 0 < y < 880: continue
            page.mouse.move(x, y)
            tip = page.locator('.bk-Tooltip img').first
            if tip.count() and tip.is_visible() and (tip.get_attribute('src') or '').startswith('data:image'):
                page.wait_for_timeout(200)
                return tip.evaluate('e => [e.naturalWidth, e.parentElement.innerText]')
    return 0, ''


RING = '''() => {
    const source = Bokeh.documents.map(d => d.get_model_by_name('ring')).find(Boolean);
    return [source.data.x[0], source.data.y[0]];
}'''


def walk(page):
    "Go through the map by keys alone."
    page.locator('#map-keys').focus()
    first, words = page.evaluate(RING), page.locator('#one-where').inner_text()
    page.keyboard.press('ArrowRight')
    page.wait_for_timeout(150)
    must(page.evaluate(RING) != first and page.locator('#one-where').inner_text() != words,
         'an arrow key moves the mark on the map, and shows the next frame')
    page.keyboard.press('ArrowLeft')
    must(page.evaluate(RING) == first, 'the other arrow key moves back')
    number = page.locator('#one-number')
    number.fill('5')
    number.press('Enter')
    page.wait_for_timeout(100)
    must(page.evaluate(RING) != first and number.input_value() == '5', 'a number goes to its frame')
    page.locator('#one-next').focus()
    page.keyboard.press('Enter')
    must(number.input_value() == '6', 'a button goes to the next')


COLOURS = '''() => {
    const models = Bokeh.documents.flatMap(d => [...(d.all_models || d._all_models.values())]);
    const axes = models.filter(m => m.type === 'LinearAxis').map(m => m.major_label_text_color);
    return [getComputedStyle(document.body).backgroundColor, ...axes];
}'''


def look(file, save):
    "Everything that is looked at in a report; `save` takes a page and a name."
    print('on a desk, in the light')
    with open_page(width=1280, height=900, color_scheme='light') as watched:
        page = opened(watched, file)
        page.keyboard.press('Tab')
        must(page.evaluate('document.activeElement.className') == 'skip', 'the first Tab offers to skip to the report')
        must(page.locator('section').count() == 10, 'ten sections')
        must(not page.locator('img[onerror]').count(), 'no text of the dataset became a tag')
        save(page, 'light')
        pictures = '"pictures":{}' not in page.locator('#map-data').text_content()
        if pictures:
            width, words = point_at(page)
            must(width > 0 and words.strip(), f'a tooltip with a picture of {width} pixels: {words.splitlines()[:2]}')
            save(page, 'hover', False)
        walk(page)
        before = page.evaluate(COLOURS)
        page.locator('#theme').click()
        page.wait_for_timeout(200)
        after = page.evaluate(COLOURS)
        must(all(a != b for a, b in zip(before, after)), 'the button makes page and charts dark')
        watched.check()
    print('in the dark')
    with open_page(width=1280, height=900, color_scheme='dark') as watched:
        page = opened(watched, file)
        must(page.evaluate(COLOURS) == after, 'dark from the start where the system is')
        save(page, 'dark')
        page.locator('#map').scroll_into_view_if_needed()
        if pictures: point_at(page)
        save(page, 'dark_hover', False)
        watched.check()
    print('on a telephone')
    with open_page(width=400, height=800, color_scheme='light', device_scale_factor=2) as watched:
        save(opened(watched, file), 'telephone')
        watched.check()
    print('on paper')
    with open_page(width=794, height=1123, color_scheme='dark') as watched:
        page = opened(watched, file)
        page.emulate_media(media='print', color_scheme='light')
        page.wait_for_timeout(200)
        must(not page.locator('nav.contents').is_visible(), 'no contents and no buttons')
        save(page, 'paper')
        watched.check()


def make_report(folder, count, dim):
    "The report of a cache that is made here; says what it took."
    from anchor_cache.report import save_report
    cache = write_cache(folder/'libero_90', count, dim)
    start = time.perf_counter()
    file = save_report(cache, folder/'report.html')
    seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'{count:,} records of {dim:,} numbers: {file.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s, '
          f'{memory:.2f} GB at most')
    must(file.stat().st_size < 5e6, 'less than 5 MB')
    return file


def main(words):
    parser = argparse.ArgumentParser(description='Make the report of a cache and use it in headless Chromium.')
    parser.add_argument('file', nargs='?', type=Path, help='a report; one is made if left out')
    parser.add_argument('--screenshots', type=Path, help='folder for pictures of the page')
    parser.add_argument('--records', type=int, default=440, help='of the cache that is made')
    parser.add_argument('--dim', type=int, default=128, help='numbers in its features')
    options = parser.parse_args(words)
    if find_chromium() is None:
        print('SKIPPED: no Chromium on this machine')
        return 0
    def save(page, name, whole=True):
        if not options.screenshots: return
        options.screenshots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=options.screenshots/f'{name}.png', full_page=whole)
    with tempfile.TemporaryDirectory(prefix='anchor_cache_check_report_') as folder:
        try: look(options.file or make_report(Path(folder), options.records, options.dim), save)
        except AssertionError as e:
            print('FAILED:', e)
            return 1
    print('the report works')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
