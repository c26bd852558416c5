"""What a finished study is used for: ask its adapter, merge it into a whole model, push either to the hub.

Every function takes a study folder that has a trained adapter::

    from pathlib import Path
    from marslora.deployment.ask import open_answerer
    from marslora.deployment.merge import merge_study

    study = Path("studies/my-llava-1a2b3c4d")
    answerer = open_answerer(study)
    print(answerer.ask("What is this?", images=["cat.png"]))  # with the adapter, and with the base model alone
    merge_study(study, Path("merged"))  # a model folder like the base's; its logits are compared with the adapter's

The files: `trained` (the model and the adapter of a study), `ask`, `merge`, `push`.
"""
