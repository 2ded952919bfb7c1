from peo_bench.api import Run as Run
from peo_bench.api import load as load
from peo_bench.api import plan as plan
from peo_bench.api import run as run

__version__: str
