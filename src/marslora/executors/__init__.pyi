from ._base import AbstractExecutor as AbstractExecutor
from ._base import resolve as resolve
