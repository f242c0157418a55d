"""Build the sdist and the wheel and check that they hold what a release needs.

    python tools/check_release.py             build, check metadata, versions and contents
    python tools/check_release.py --install   also install each with [build] in a fresh environment, run the demo with
                                              each and compare the two caches byte for byte
    python tools/check_release.py --dist DIR  keep the built files in DIR

Needs the packages build and twine. Both files are built in a temporary copy of what git does not ignore, so that
nothing from an earlier build gets in and the checkout stays clean. Exit status 1, and one line that says why, when
something is wrong. On a tag (GITHUB_REF_TYPE=tag) the tag and the changelog must name the version too.
"""
import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_SDIST = ('settings.ini', 'setup.py', 'pyproject.toml', 'constraints.txt', 'LICENSE', 'README.md', 'CHANGELOG.md')
START = time.monotonic()


def say(text):
    "Print a line with the seconds since the start."
    print(f'{time.monotonic() - START:4.0f} s  {text}', flush=True)


def require(good, text):
    "End with exit status 1 and `text` unless `good`."
    if not good: sys.exit(f'FAILED: {text}')


def run(*command, cwd=ROOT, status=0, **env):
    "Run a command that must end with `status`; what it printed on stdout, and on stderr."
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': '', **env})
    if done.returncode != status:
        print(*(done.stdout + done.stderr).splitlines()[-30:], sep='\n', file=sys.stderr)
        shown = ' '.join(Path(c).name if i == 0 else str(c).split('\n')[0] for i, c in enumerate(command))
        sys.exit(f'FAILED: exit status {done.returncode}, expected {status}: {shown}')
    return done.stdout, done.stderr


@contextlib.contextmanager
def temporary_folder():
    "A temporary folder, also for what pip unpacks; it goes away at the end, also when the process is told to end."
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('FAILED: told to end'))
    with tempfile.TemporaryDirectory(prefix='anchor_cache_check_') as folder:
        os.environ['TMPDIR'] = folder
        yield Path(folder)


def our_files():
    "Paths, relative to the checkout, of the files that git tracks or would."
    listed, _ = run('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard')
    return [p for p in listed.split('\0') if p and (ROOT/p).is_file()]


def build(folder):
    "Build both files below `folder`: the sdist, and the wheel from the sdist."
    source, dist = folder/'source', folder/'dist'
    for path in our_files():
        (source/path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT/path, source/path)
    run(sys.executable, '-m', 'build', '--outdir', dist, source, cwd=folder)
    (sdist,), (wheel,) = dist.glob('*.tar.gz'), dist.glob('*.whl')
    return sdist, wheel


def make_environment(folder, python=None):
    "A new virtual environment, of the running Python or of the command `python`; its folder of commands."
    if python is None: venv.create(folder, with_pip=True, symlinks=True)
    else: run(*python, '-m', 'venv', folder, cwd=folder.parent)
    return folder/'bin'


def read_settings():
    "The values in settings.ini."
    parser = ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def read_metadata(wheel):
    "The names in a wheel, and its METADATA."
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        (path,) = (n for n in names if n.endswith('.dist-info/METADATA'))
        return names, message_from_string(z.read(path).decode())


def check_versions(version, metadata):
    "The version of settings.ini is that of the package, the wheel, the changelog and the tag."
    package = re.search(r'__version__ = "(.+)"', (ROOT/'anchor_cache'/'__init__.py').read_text())[1]
    require(package == version, f'anchor_cache.__version__ is {package}, settings.ini says {version}; run nbdev_export')
    require(metadata['Version'] == version, f'the wheel is {metadata["Version"]}, settings.ini says {version}')
    headings = re.findall(r'^## (.+)$', (ROOT/'CHANGELOG.md').read_text(encoding='utf-8'), re.M)
    dated = any(re.fullmatch(re.escape(version) + r' - \d{4}-\d\d-\d\d', h) for h in headings)
    require(dated or 'Unreleased' in headings, f'CHANGELOG.md has neither "## {version} - DATE" nor "## Unreleased"')
    if os.environ.get('GITHUB_REF_TYPE') == 'tag':
        tag = os.environ.get('GITHUB_REF_NAME')
        require(tag == f'v{version}', f'the tag is {tag}, expected v{version} as settings.ini says')
        require(dated, f'CHANGELOG.md has no "## {version} - DATE", which the tag {tag} needs')


def check_metadata(settings, metadata):
    "Without an extra the wheel needs torch alone, on the Python that settings.ini names; the extras are there."
    needed = [r for r in metadata.get_all('Requires-Dist') if 'extra ==' not in r]
    names = [re.match(r'[\w.-]+', r)[0] for r in needed]
    require(names == ['torch'], f'the base install needs {", ".join(needed)}, expected torch alone')
    python, expected = metadata['Requires-Python'], f'>={settings["min_python"]}'
    require(python == expected, f'Requires-Python is {python}, expected {expected}')
    extras, expected = metadata.get_all('Provides-Extra'), [k[:-13] for k in settings if k.endswith('_requirements')]
    require(sorted(extras) == sorted(expected), f'the extras are {extras}, expected {expected}')


def check_contents(sdist, wheel_names):
    "The sdist holds what an install needs; the wheel holds the package's files and no others."
    ours = {p for p in our_files() if p.startswith('anchor_cache/')}
    with tarfile.open(sdist) as t: in_sdist = {m.name.partition('/')[2] for m in t if m.isfile()}
    missing = sorted((ours | set(IN_SDIST)) - in_sdist)
    require(not missing, f'the sdist lacks {", ".join(missing)}')
    in_wheel = {n for n in wheel_names if '.dist-info/' not in n}
    require(in_wheel >= ours, f'the wheel lacks {", ".join(sorted(ours - in_wheel))}')
    require(in_wheel <= ours, f'the wheel holds {", ".join(sorted(in_wheel - ours))}, not files of the package')
    require('anchor_cache/py.typed' in ours, 'anchor_cache/py.typed is missing')
    require(any(n.endswith('.dist-info/licenses/LICENSE') for n in wheel_names), 'the wheel lacks LICENSE')


def install(bin, file):
    "Install a built file with what a build needs, as constraints.txt pins it."
    run(bin/'pip', 'install', '-q', '--no-compile', '-c', ROOT/'constraints.txt', f'{file}[build]')
    say(f'installed {file.name}')


def demo(bin, folder, version):
    "Run the installed demo outside the checkout; the bytes of each file of its cache but the log."
    folder.mkdir()
    shown, _ = run(bin/'anchor-cache', '--version', cwd=folder)
    require(shown.strip() == version, f'anchor-cache --version gives {shown.strip()}, expected {version}')
    run(bin/'anchor-cache', 'demo', cwd=folder, ANCHOR_CACHE_HOME=str(folder/'home'))
    files = {p.name: p.read_bytes() for p in (folder/'anchor_cache_demo'/'cache').iterdir() if p.name != 'build.log'}
    require('manifest.json' in files and any(n.endswith('.pt') for n in files), f'the demo left only {sorted(files)}')
    say(f'demo: {len(files)} files')
    return files


def check_install(folder, sdist, wheel, version):
    "In one new environment the wheel and then the sdist install, and their demos give the same cache."
    bin = make_environment(folder/'venv')
    install(bin, wheel)
    first = demo(bin, folder/'of_wheel', version)
    run(bin/'pip', 'uninstall', '-q', '-y', 'anchor_cache')
    install(bin, sdist)
    second = demo(bin, folder/'of_sdist', version)
    differing = sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))
    require(not differing, f'the demos of wheel and sdist differ in {", ".join(differing)}')
    say('the demos of wheel and sdist give the same bytes')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--install', action='store_true', help='install both in a fresh environment and run the demo')
    parser.add_argument('--dist', type=Path, metavar='DIR', help='keep the built files here')
    options = parser.parse_args()
    settings = read_settings()
    with temporary_folder() as folder:
        sdist, wheel = build(folder)
        say(f'built {sdist.name} and {wheel.name}')
        run(sys.executable, '-m', 'twine', 'check', '--strict', sdist, wheel)
        names, metadata = read_metadata(wheel)
        check_versions(settings['version'], metadata)
        check_metadata(settings, metadata)
        check_contents(sdist, names)
        say('metadata, versions and contents are right')
        if options.install: check_install(folder, sdist, wheel, settings['version'])
        if options.dist:
            options.dist.mkdir(parents=True, exist_ok=True)
            for file in (sdist, wheel): shutil.copy(file, options.dist)
    say('release: passed')


if __name__ == '__main__':
    main()
