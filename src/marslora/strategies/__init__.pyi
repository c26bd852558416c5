from ._base import LEAST_STEPS as LEAST_STEPS
from ._base import AbstractStrategy as AbstractStrategy
from ._base import Problem as Problem
from ._base import total_cost as total_cost
