"""Push an adapter or a merged model to the hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from marslora.core.errors import ConfigError, StudyError
from marslora.deployment.trained import find_trained
from marslora.report.model_card import NAME as CARD
from marslora.report.model_card import PLACEHOLDER, name_model

PEFT_CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter of PEFT."""


def check_can_push(repo: str) -> None:
    """Raise `ConfigError` unless ``repo`` can be a name on the hub and the hub knows who would push to it."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(
            f"`push_to_hub` must be a name on the hub such as `owner/model`, found {repo!r} ({error})."
        ) from None
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError:
        raise ConfigError(
            f"`push_to_hub` {repo} needs a token with write access, and none is stored. Run `hf auth login`, or leave "
            "the option out."
        ) from None
    except Exception as error:  # clients of the network have errors of their own
        raise ConfigError(
            f"`push_to_hub` {repo} cannot be reached ({_first_line(error)}). Check the network and the token (`hf auth "
            "whoami`), or leave the option out."
        ) from None


def push_study(folder: Path, repo: str, *, private: bool = False) -> str:
    """Push the adapter of the study in ``folder`` with its model card; the address of the repository.

    Raises `StudyError` if there is none, or if the hub refuses.
    """
    study = find_trained(folder)
    return push_folder(study.adapter, repo, name_model(study.model.path), private=private)


def push_folder(folder: Path, repo: str, base: str, *, private: bool = False) -> str:
    """Push a folder to the repository ``repo`` of the hub, which is made if it does not exist; its address.

    An adapter names its base model ``base`` there, instead of the folder in which the base was here, and the card loads
    it from ``repo``. Raises `StudyError` if the hub refuses, or cannot be reached; nothing here is changed.
    """
    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary, "model")
        shutil.copytree(folder, staged, copy_function=_link_or_copy)
        _rename_base(staged, base)
        _rename_folder(staged / CARD, repo)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo, folder_path=staged, commit_message="Upload with marslora")
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise StudyError(
                f"{folder} cannot be pushed to {repo}: {_first_line(error)}. It is whole here; check the name, the "
                "token (`hf auth whoami`) and the network, and push it again."
            ) from None
    return str(getattr(done, "commit_url", done)).partition("/commit/")[0]


def _rename_base(folder: Path, base: str) -> None:
    """Replace the path of the base model in every PEFT configuration below ``folder`` by its name."""
    for path in folder.rglob(PEFT_CONFIG):
        config = json.loads(path.read_text())
        _replace_text(path, json.dumps({**config, "base_model_name_or_path": base}, indent=2) + "\n")


def _rename_folder(card: Path, repo: str) -> None:
    """Let the code of the card load the repository, if there is a card."""
    if card.exists():
        _replace_text(card, card.read_text(encoding="utf-8").replace(PLACEHOLDER, repo))


def _replace_text(path: Path, text: str) -> None:
    path.unlink()  # it is a link to the original where links can be made
    path.write_text(text, encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _first_line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
