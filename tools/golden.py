"""Where the golden data is: what the real OpenVLA code computed, which the parity tests compare with.

    python tools/golden.py   say whether the parity tests run or are skipped; the last line of the README's test command
"""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def golden_folder():
    "The folder that `ANCHOR_CACHE_GOLDEN` names, or the one beside the project; None where there is none."
    folder = Path(os.environ.get('ANCHOR_CACHE_GOLDEN') or ROOT.parent/'shared'/'golden')
    return folder if (folder/'README.md').is_file() else None


def report():
    "One line: whether the parity tests run, and on what."
    if folder := golden_folder(): return f'parity with OpenVLA: RUN, on the golden data in {folder}'
    return 'parity with OpenVLA: SKIPPED, no golden data here; set ANCHOR_CACHE_GOLDEN to run it'


if __name__ == '__main__':
    print(report())
