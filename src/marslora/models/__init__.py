"""Load any multimodal model of `transformers`, find its parts, and probe which of its layers can learn.

A *part* is vision, audio, projector or language. Parts are found from what `transformers` declares and from names, not
from a table of models (docs/coverage.md lists what that covers); `overrides` has a small file for each family that
hides one. Where a model comes from and what is done with it::

    from marslora.core.spec import ModelSpec
    from marslora.models.loading import describe, load

    info = describe(ModelSpec(path="model"))  # a folder or a hub name; reads the configuration, no weights
    print([(part.name, len(part.linears)) for part in info.parts])
    loaded = load(ModelSpec(path="model"))  # frozen, in evaluation mode; the last two models stay loaded

A model that is an object already gets a path by `register_model`, and discovery and the probe take any module::

    from marslora.models.discovery import discover
    from marslora.models.loading import register_model
    from marslora.models.probe import probe

    path = register_model("mine", loaded.model, loaded.processor)  # "memory:mine", valid in this process
    info = discover(load(ModelSpec(path=path)).model)
    # probe(model, batch, info): one forward and backward marks dead linears and returns warnings with a remedy

The files: `folders` (where a model is, without torch), `loading`, `discovery`, `probe`, `answers` (the loss of answer
tokens, for one model or for K members at once), `precision`, `overrides`.
"""
