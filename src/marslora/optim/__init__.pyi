from ._base import AbstractOptimizer as AbstractOptimizer
from ._bucket import Bucket as Bucket
from ._build import check_optimizer as check_optimizer
from ._build import create_optimizer as create_optimizer
from ._peft_groups import peft_groups as peft_groups
from ._recursion import AbstractRecursion as AbstractRecursion
from ._recursion import as_two_point as as_two_point
