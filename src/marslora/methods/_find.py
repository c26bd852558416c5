"""Find the class of an adapter's name: a packed adapter or a method, from this package or from elsewhere.

Torch is imported only if a class is needed, so that a study with a plain adapter is checked quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marslora import adapters, methods
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.training import PluginSpec

if TYPE_CHECKING:
    from marslora.adapters import AbstractAdapter
    from marslora.methods._base import AbstractMethod


def find_adapter(name: str) -> type[AbstractAdapter] | type[AbstractMethod]:
    """Return the class of an adapter's name.

    Raises `ConfigError` for a name that does not exist, or a class that is neither a packed adapter nor a method.
    """
    from marslora.adapters import AbstractAdapter
    from marslora.methods._base import AbstractMethod

    plugins.check(name, adapters, methods)
    if ":" not in name:
        if name in plugins.names(adapters):
            return plugins.load(adapters, name, AbstractAdapter)
        return plugins.load(methods, name, AbstractMethod)
    adapter_class: type[Any] = plugins.load(adapters, name, object)
    if not issubclass(adapter_class, AbstractAdapter | AbstractMethod):
        raise ConfigError(
            f"`adapter` {name} must be a subclass of `marslora.adapters.AbstractAdapter`, which trains packed, or of "
            f"`marslora.methods.AbstractMethod`, which trains in the final run only; found {adapter_class!r}."
        )
    return adapter_class


def check_adapter(adapter: PluginSpec, *, packed: bool = False) -> None:
    """Raise `ConfigError` unless the adapter exists, takes its options and, if ``packed``, can train packed."""
    plugins.check(adapter.name, adapters, methods)
    if adapter.name in plugins.names(adapters) and not adapter.options:
        return
    from marslora.adapters import AbstractAdapter

    adapter_class = find_adapter(adapter.name)
    if packed and not issubclass(adapter_class, AbstractAdapter):
        raise ConfigError(
            f"`adapter` {adapter.name} can only train in the final run, because calibration runs share one model, "
            f"which needs one of {list(plugins.names(adapters))}. Calibrate with plain LoRA "
            "(`--calibration-adapter lora`), or choose the ranks yourself (`--strategy uniform`)."
        )
    if issubclass(adapter_class, AbstractAdapter):
        plugins.check_options("adapter", adapter.name, adapter_class, adapter.options)
    else:
        make_method(adapter)


def make_method(adapter: PluginSpec) -> AbstractMethod:
    """Return the method that trains an adapter in the final run. A packed adapter is trained as a pack of one.

    Raises `ConfigError` for an unknown name or option.
    """
    from marslora.adapters import AbstractAdapter
    from marslora.methods._packed import PackedMethod

    adapter_class = find_adapter(adapter.name)
    if issubclass(adapter_class, AbstractAdapter):
        plugins.check_options("adapter", adapter.name, adapter_class, adapter.options)
        return PackedMethod(adapter.name, adapter_class, adapter.options)
    return plugins.build("adapter", adapter.name, adapter_class, adapter.options)
