from ._base import AbstractExecutor as AbstractExecutor
from ._base import resolve_work as resolve_work
