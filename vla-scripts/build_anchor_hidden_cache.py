"""Build a hidden anchor cache; kept so that existing command lines run unchanged. The work is in anchor_cache.build."""
import sys

from anchor_cache.build import main

if __name__ == '__main__':
    sys.exit(main())
