"""Find the class of an adapter's name: a packed adapter or a method, from this package or from elsewhere.

Torch is imported only if a class is needed, so that a study with a plain adapter is checked quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marslora import adapters, methods
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.training import PluginSpec, read_lora_variant

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


def check_adapter(
    adapter: PluginSpec, *, packed: bool = False, dropout: float = 0.0, experts: bool = False, tokens: bool = False
) -> None:
    """Raise `ConfigError` unless an adapter can train what is asked of it.

    It must exist and take its options; train packed if ``packed``; drop inputs if ``dropout`` is above 0; be trained by
    PEFT itself if rows of ``tokens`` are trained too; and, if ``experts``, be one beside which stacked experts are
    adapted, which PEFT does without dropout and DoRA alone.
    """
    plugins.check(adapter.name, adapters, methods)
    if adapter.name in plugins.names(adapters) and not (adapter.options or dropout or experts or tokens):
        return
    from marslora.adapters import AbstractAdapter

    adapter_class = find_adapter(adapter.name)
    if packed and not issubclass(adapter_class, AbstractAdapter):
        raise ConfigError(
            f"`adapter` {adapter.name} can only train in the final run, because calibration runs share one model, "
            f"which needs one of {list(plugins.names(adapters))}. Calibrate with plain LoRA "
            "(`--calibration-adapter lora`), or choose the setting yourself (`--strategy uniform`)."
        )
    make_method(adapter)
    takes_dropout = adapter_class.takes_dropout if issubclass(adapter_class, AbstractAdapter) else True
    if dropout and not takes_dropout:
        raise ConfigError(f"`adapter` {adapter.name} has no dropout, found `dropout` {dropout:g}. Set it to 0.")
    trained_by_peft = issubclass(adapter_class, AbstractAdapter) and adapter_class.trained_by_peft
    if experts and (dropout or read_lora_variant(adapter.options)["use_dora"] or not trained_by_peft):
        raise ConfigError(
            "`experts` need the adapter `lora` without dropout and DoRA, since PEFT supports nothing else; found "
            f"{adapter} with dropout {dropout:g}. Change that, or leave `experts` out."
        )
    if tokens and not trained_by_peft:
        raise ConfigError(
            f"`trainable_token_indices` need the adapter `lora`, beside which PEFT trains them, found `{adapter}`. "
            "Change that, or leave them out."
        )


def make_method(adapter: PluginSpec) -> AbstractMethod:
    """Return the method that trains an adapter in the final run. A packed adapter is trained as a pack of one.

    Raises `ConfigError` for an unknown name, an unknown option or a wrong value.
    """
    from marslora.adapters import AbstractAdapter
    from marslora.methods._packed import PackedMethod

    adapter_class = find_adapter(adapter.name)
    if issubclass(adapter_class, AbstractAdapter):
        return PackedMethod(adapter.name, adapter_class, adapter.options)
    return adapter_class(**adapter.options)
