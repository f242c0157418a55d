"""Open the built site in headless Chromium: pages, pictures, search, dark mode; no error, and no request elsewhere.

    python tools/docs.py && python tools/check_site.py [FOLDER] [--screenshots DIR]

Exit status 1 names what is wrong. Without a Chromium (see tools/browser.py) it says SKIPPED. The site is opened once
over HTTP from this machine, and once as files.
"""
import argparse
import contextlib
import functools
import http.server
import sys
import threading
from pathlib import Path

from browser import find_chromium, open_page

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL, MODULE, NOTEBOOK = 'tutorials/explore_a_dataset', 'api/retention', 'how/retention'
QUERY = 'pooling'


class Quiet(http.server.SimpleHTTPRequestHandler):
    "Serves a folder and says nothing."
    def log_message(self, *args): pass


@contextlib.contextmanager
def served(folder):
    "The address of a folder, served on this machine."
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    server.handle_error = lambda *args: None  # a page that is left while it loads
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()


class Look:
    "The pages of a site that are opened one after the other, and what was seen on them."
    def __init__(self, page, root, screenshots=None, prefix=''):
        self.page, self.root, self.screenshots, self.prefix = page, root, screenshots, prefix

    def open(self, name):
        self.page.goto(self.root + name + '.html')
        self.page.wait_for_load_state('load')

    def shot(self, name):
        if self.screenshots: self.page.screenshot(path=str(self.screenshots/f'{self.prefix}{name}.png'))

    def count(self, selector): return self.page.locator(selector).count()

    def expect(self, right, what):
        "Print what was seen; raises `AssertionError` where it is not what was expected."
        assert right, f'{self.page.url}: {what}'
        print(f'  {what}')


def front(look):
    look.open('index')
    look.expect(look.page.title() == 'anchor_cache', f'title {look.page.title()!r}')
    entries = look.page.locator('.sidebar-tree a').evaluate_all('all => all.filter(a => a.offsetParent).length')
    look.expect(10 <= entries <= 45, f'{entries} entries in the sidebar')
    look.expect(look.count('.cards a') >= 8, f'{look.count(".cards a")} links on the front page')
    look.shot('front')


def tutorial(look):
    look.open(TUTORIAL)
    widths = look.page.locator('article img').evaluate_all('all => all.map(image => image.naturalWidth)')
    look.expect(widths and min(widths) > 100, f'{TUTORIAL}: pictures {widths} wide')
    look.expect(not look.page.get_by_text('#| ').count(), f'{TUTORIAL}: no directive of nbdev in sight')
    look.shot('tutorial')
    look.page.locator('article img').first.scroll_into_view_if_needed()
    look.shot('tutorial_picture')


def module(look):
    look.open(MODULE)
    text = look.page.locator('dl.py').first.inner_text()
    look.expect('records of each rank and step' in text, f'{MODULE}: the comment on batch_size is there')
    look.shot('module')
    look.page.locator('dl.py.class .viewcode-link').first.click()
    look.page.wait_for_load_state('load')
    look.expect(NOTEBOOK in look.page.url and '#Anchors' in look.page.url, f'[source] leads to {look.page.url}')
    look.shot('notebook')


def search(look, summaries):
    look.page.goto(f'{look.root}search.html?q={QUERY}')
    look.page.wait_for_selector('#search-results li a')
    look.page.wait_for_function('document.querySelector("#search-results h2").textContent == "Search Results"')
    look.page.wait_for_timeout(500)  # for the excerpts
    found, told = look.count('#search-results li'), look.count('#search-results li p.context')
    look.expect(found >= 5, f'search for {QUERY!r}: {found} pages, {told} with an excerpt')
    look.expect((told > 0) == summaries, f'excerpts: {told > 0}')
    look.shot('search')


def rest(look):
    for name in ('reference/index', 'reference/commands', 'reference/training', 'cache_format', 'concepts',
                 'guide/quick_start', 'guide/building'):
        if not (look.screenshots and look.prefix == 'light_'): continue
        look.open(name)
        look.shot(name.replace('/', '_'))


def check_site(site, screenshots=None):
    "Look at a site in both ways and both schemes; raises `AssertionError` for what is wrong."
    with served(site) as address:
        for scheme in ('light', 'dark'):
            here = address, 'data:', 'blob:', 'about:'
            with open_page(here=here, color_scheme=scheme) as watched:
                print(f'{address}, {scheme}')
                look = Look(watched.page, address, screenshots, scheme + '_')
                front(look)
                shade = look.page.evaluate('getComputedStyle(document.body).backgroundColor')
                dark = sum(map(int, shade.removeprefix('rgb(').rstrip(')').split(','))) < 200
                look.expect(dark == (scheme == 'dark'), f'background {shade}')
                tutorial(look)
                module(look)
                search(look, summaries=True)
                rest(look)
                watched.check()
    with open_page(width=420) as watched:
        address = site.as_uri() + '/'
        print(f'{address}, narrow')
        look = Look(watched.page, address, screenshots, 'narrow_')
        look.open('index')
        wide = look.page.evaluate('document.documentElement.scrollWidth')
        look.expect(wide <= 420, f'{wide} pixels wide on a screen of 420')
        look.shot('front')
        tutorial(look)
        search(look, summaries=False)
        watched.check()


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('site', nargs='?', default='_docs', metavar='FOLDER', help='that tools/docs.py made')
    parser.add_argument('--screenshots', metavar='FOLDER', help='to keep pictures of the pages in')
    options = parser.parse_args(words)
    site, shots = Path(options.site).resolve(), options.screenshots and Path(options.screenshots).resolve()
    if find_chromium() is None:
        print('SKIPPED: no Chromium')
        return 0
    if not (site/'index.html').is_file():
        print(f'{site} has no index.html; run python tools/docs.py first', file=sys.stderr)
        return 1
    if shots: shots.mkdir(parents=True, exist_ok=True)
    try: check_site(site, shots)
    except AssertionError as e:
        print(e, file=sys.stderr)
        return 1
    print('the site is as it should be')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
