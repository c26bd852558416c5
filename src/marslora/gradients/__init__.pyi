from ._average import average_over_processes as average_over_processes
from ._base import AbstractCombiner as AbstractCombiner
from ._base import Block as Block
from ._base import Weights as Weights
from ._combine import combine as combine
from ._separate import SeparateGradients as SeparateGradients
from ._separate import refuse_reentrant as refuse_reentrant
