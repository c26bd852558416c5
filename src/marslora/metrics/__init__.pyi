from ._find import LOSS as LOSS
from ._find import Metric as Metric
from ._find import find_metric as find_metric
from ._find import measure as measure
