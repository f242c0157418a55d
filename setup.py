"""Install anchor_cache from what settings.ini says."""
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=['='])
parser.read(here / 'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_name']

setup(
    name=lib,
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=[lib, lib + '.*']),
    package_data={lib: ['demo_data/*', 'demo_data/*/*', 'demo_data/rlds/*/*/*']},
    install_requires=shlex.split(cfg['requirements']),
    extras_require={'dev': shlex.split(cfg['dev_requirements'])},
    entry_points={
        'console_scripts': shlex.split(cfg['console_scripts']),
        'nbdev': [f'{lib}={lib}._modidx:d'],
    },
    zip_safe=False,
)
