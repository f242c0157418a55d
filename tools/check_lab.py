"""Open a tutorial in JupyterLab in headless Chromium, run it by its menu, and look at what it drew.

    python tools/check_lab.py                        exit status 1 for a cell with an error, or a missing picture
    python tools/check_lab.py --screenshots DIR      keep what Chromium showed

The server has a folder, settings and a token of its own, and is ended whatever happens.
"""
import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from browser import find_chromium, open_page

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT/'nbs'/'tutorials'/'build_your_first_cache.ipynb'
LIMIT = 115  # seconds for everything
RAN = re.compile(r'\[\d+\]:')  # before a cell that was run


def copied(path, folder):
    "A copy of a notebook without its outputs, and how many pictures and how many texts in HTML these have."
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']
    shown = [output['data'] for cell in code for output in cell['outputs'] if 'data' in output]
    html = [''.join(data['text/html']) for data in shown if 'text/html' in data]
    for cell in code: cell.update(outputs=[], execution_count=None)
    (folder/path.name).write_text(json.dumps(notebook))
    alone = sum('image/png' in data and 'text/html' not in data for data in shown)
    return alone + sum(text.count('<img') for text in html), len(html)


def settings(folder):
    "The environment of a JupyterLab that nobody has set up, that draws every cell, seen or not, and asks for no news."
    for extension, name, values in (('notebook-extension', 'tracker', dict(windowingMode='none')),
                                    ('apputils-extension', 'notification', dict(fetchNews='false'))):
        there = folder/'lab'/'@jupyterlab'/extension
        there.mkdir(parents=True)
        (there/f'{name}.jupyterlab-settings').write_text(json.dumps(values))
    names = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='runtime',
                 IPYTHONDIR='ipython', JUPYTERLAB_SETTINGS_DIR='lab', JUPYTERLAB_WORKSPACES_DIR='workspaces')
    return {name: str(folder/part) for name, part in names.items()}


def free_port():
    "A port of loopback that nobody listens on."
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def lab(folder, end):
    "Inside: a JupyterLab that serves a folder; its address and its token."
    port, token, log = free_port(), secrets.token_hex(16), folder/'lab.log'
    words = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ServerApp.ip=127.0.0.1',
             f'--ServerApp.port={port}', '--ServerApp.port_retries=0', f'--ServerApp.root_dir={folder/"notebooks"}',
             '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    environ = os.environ | settings(folder/'settings') | dict(JUPYTER_TOKEN=token, TMPDIR=str(folder))
    with open(log, 'w') as said: process = subprocess.Popen(words, stdout=said, stderr=said, env=environ)
    opener, address = urllib.request.build_opener(urllib.request.ProxyHandler({})), f'http://127.0.0.1:{port}'
    try:
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                opener.open(f'{address}/api/status?token={token}', timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f'JupyterLab did not start:\n{log.read_text()[-3000:]}')
            time.sleep(.2)
        yield address, token
    finally:
        process.terminate()  # it ends its kernels
        try: process.wait(10)
        except subprocess.TimeoutExpired: process.kill()


def wait_for_kernel(page):
    "Wait until the line at the bottom of the window says that the kernel is there and has nothing to do."
    page.get_by_text(re.compile(r'\| Idle$')).wait_for()


def run_all(page, seconds):
    "Choose Run > Run All Cells, and wait until no cell waits any more, so long at most."
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    page.wait_for_function("""() => {
        const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]
            .map(prompt => prompt.textContent.trim());
        return /\\d/.test(prompts[0]) && !prompts.includes('[*]:');
    }""", timeout=1000 * seconds)
    wait_for_kernel(page)


def look(page, pictures, texts):
    "Raise `AssertionError` for an error, a warning, a cell that did not run, or too few pictures or texts in HTML."
    cells = page.locator('.jp-Notebook .jp-CodeCell')
    prompts = [text.strip() for text in cells.locator('.jp-InputPrompt').all_text_contents()]
    said = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]').all_text_contents()
    assert not said, f'a cell ended with an error, or wrote to stderr:\n{said[0][-3000:]}'
    assert prompts and all(map(RAN.fullmatch, prompts)), f'not every cell ran: {" ".join(prompts)}'
    drawn = page.locator('.jp-OutputArea-output img').evaluate_all('(all) => all.map(i => i.naturalWidth)')
    shown = page.locator('.jp-OutputArea-output.jp-RenderedHTML').count()
    print(f'{len(prompts)} cells ran; {len(drawn)} pictures, widths {drawn}; {shown} texts in HTML')
    assert len(drawn) >= pictures > 0 and min(drawn) > 0, f'got pictures of widths {drawn}, expected {pictures}'
    assert shown >= texts > 0, f'got {shown} texts in HTML, expected {texts}'


def photograph(page, folder):
    "Save the window as it is, and one screenshot for each picture and each text in HTML."
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder/'lab.png')
    outputs = page.locator('.jp-OutputArea-output:has(img), .jp-OutputArea-output.jp-RenderedHTML')
    for n in range(outputs.count()):
        outputs.nth(n).scroll_into_view_if_needed()
        page.screenshot(path=folder/f'output_{n}.png')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('notebook', nargs='?', type=Path, default=TUTORIAL)
    parser.add_argument('--screenshots', type=Path, metavar='DIR')
    options = parser.parse_args()
    if not find_chromium():
        print('SKIPPED: no Chromium here; set ANCHOR_CACHE_CHROMIUM to one')
        return 0
    def late(*_): raise AssertionError(f'not done after {LIMIT} seconds')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='anchor_cache_lab_', ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder/'notebooks').mkdir()
        expected = copied(options.notebook, folder/'notebooks')
        with (lab(folder, start + 60) as (address, token),
              open_page(here=(f'{address}/', 'data:', 'blob:', 'about:')) as watched):
            page = watched.page
            page.goto(f'{address}/lab/tree/{options.notebook.name}?token={token}')
            page.locator('.jp-Notebook .jp-CodeCell').first.wait_for()
            wait_for_kernel(page)
            began = time.monotonic()
            try: run_all(page, LIMIT - 8 - (began - start))
            finally:
                if options.screenshots: photograph(page, options.screenshots)
            took = time.monotonic() - began
            look(page, *expected)
            watched.check()
    whole = time.monotonic() - start
    print(f'{options.notebook.name} in JupyterLab: all well, {took:.0f} s to run, {whole:.0f} s in all')
    return 0


if __name__ == '__main__':
    sys.exit(main())
