"""What is pushed: the folder with its card, without a path of this machine, to a hub that is imitated here."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from marslora.core.errors import ConfigError, StudyError
from marslora.demo.model import embedded_folder
from marslora.deployment import push
from tests.end_to_end.test_cli import run


class FakeHub:
    """Keeps what is uploaded; may refuse."""

    def __init__(self, folder, token=True, error=None):
        self.folder, self.token, self.error = folder, token, error
        self.calls = []

    def whoami(self):
        if not self.token:
            raise LocalTokenNotFoundError("no token")
        return {"name": "me"}

    def create_repo(self, repo, *, private, exist_ok):
        self.calls.append(("create_repo", repo, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if self.error:
            raise self.error
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        self.calls.append(("upload_folder", repo_id, commit_message))
        return f"https://hub/{repo_id}/commit/1"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(push, "HfApi", lambda: fake)
    return fake


def texts(folder):
    return "\n".join(path.read_text() for path in Path(folder).iterdir() if path.suffix in (".json", ".md"))


def test_an_adapter_is_pushed_whole_and_without_local_paths(hub, decision):
    before = texts(decision.adapter_folder)
    assert decision.push_to_hub("me/adapter", private=True) == "https://hub/me/adapter"
    pushed = hub.folder / "me" / "adapter"
    assert hub.calls == [
        ("create_repo", "me/adapter", True, True),
        ("upload_folder", "me/adapter", "Upload with marslora"),
    ]
    assert {path.name for path in pushed.iterdir()} == {path.name for path in decision.adapter_folder.iterdir()}
    assert json.loads((pushed / "adapter_config.json").read_text())["base_model_name_or_path"] == "embedded"
    assert 'PeftModel.from_pretrained(model, "me/adapter")' in (pushed / "README.md").read_text()
    assert str(embedded_folder().parent) not in texts(pushed)
    assert str(decision.folder.parent) not in texts(pushed)
    assert texts(decision.adapter_folder) == before


def test_the_card_states_what_a_stranger_needs(decision):
    text = (decision.adapter_folder / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "peft"
    assert card.data.license == "unknown"
    assert card.data.pipeline_tag == "image-text-to-text"
    for words in ("| vision | 16 | 0.01 |", "64 training, 8 validation and 4 test rows", "both-train.parquet"):
        assert words in text
    assert f"| validation | {decision.final.base_validation_loss:.3f} |" in text
    assert f"{decision.final.test_loss:.3f}" in text
    assert "transformers 5" in text and "peft 0." in text
    assert str(decision.folder.parent) not in text


def test_a_refusal_is_explained_and_changes_nothing(hub, decision):
    class Response:
        headers: dict = {}
        request = None
        status_code = 403

    hub.error = HfHubHTTPError("403 Forbidden: no write access\nmore", response=Response())
    before = texts(decision.adapter_folder)
    with pytest.raises(StudyError, match=r"cannot be pushed to me/adapter: 403 Forbidden: no write access"):
        decision.push_to_hub("me/adapter")
    assert texts(decision.adapter_folder) == before


def test_who_cannot_push_is_told_before_anything_is_trained(hub, monkeypatch, capsys, study):
    words = ["search", "--model", embedded_folder(), "--train", study.parent / "rows" / "both-train.parquet"]
    code, _, error = run(monkeypatch, capsys, *words, "--push-to-hub", "a/b/c")
    assert code == 2 and "such as `owner/model`, found 'a/b/c'" in error
    hub.token = False
    code, _, error = run(monkeypatch, capsys, *words, "--push-to-hub", "me/adapter")
    assert code == 2 and "hf auth login" in error
    code, _, error = run(monkeypatch, capsys, *words, "--push-to-hub", "me/adapter", "--no-final")
    assert code == 2 and "needs the adapter of a final run" in error
    with pytest.raises(ConfigError):
        push.check_can_push("me/adapter")


def test_a_merged_model_is_pushed_with_its_own_card(hub, monkeypatch, capsys, study, tmp_path):
    words = ["merge", study, "--out", tmp_path / "merged", "--push-to-hub", "me/whole", "--license", "apache-2.0"]
    code, told, _ = run(monkeypatch, capsys, *words)
    assert code == 0 and "https://hub/me/whole" in told
    text = (hub.folder / "me" / "whole" / "README.md").read_text()
    assert ModelCard(text).data.license == "apache-2.0"
    assert 'AutoModelForImageTextToText.from_pretrained("me/whole")' in text
    assert "merged into its weights" in text
