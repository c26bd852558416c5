from ._base import AbstractOptimizer as AbstractOptimizer
from ._base import Bucket as Bucket
from ._peft_groups import peft_groups as peft_groups
from ._recursion import AbstractRecursion as AbstractRecursion
from ._recursion import as_two_point as as_two_point
