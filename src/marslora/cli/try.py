"""``marslora try``: ask the trained adapter of a study, and its base model beside it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from marslora.core.errors import DataError
from marslora.listeners.console import PlainConsole, print_line

if TYPE_CHECKING:
    from marslora.deployment.ask import Answerer

STUDY = typer.Argument(help="Study folder with a trained adapter.")
QUESTION = typer.Option(
    "--question", "-q", help="What to ask. Default: a prompt that asks for one question after another."
)
IMAGE = typer.Option("--image", "-i", help="Picture that the question is about. Repeatable.", metavar="FILE")
AUDIO = typer.Option("--audio", "-a", help="Sound that the question is about. Repeatable.", metavar="FILE")
BASE = typer.Option("--base/--no-base", help="Show the base model's answer too.")
MAX_TOKENS = typer.Option(min=1, help="Tokens after which an answer is cut.")
MODEL = typer.Option("--model", "-m", help="Base model, if it is elsewhere now. Default: where the study had it.")
DEVICE = typer.Option(help="Device to use, such as cpu or cuda:1. Default: the study's.")
TASK = typer.Option(help="Task, for an adapter that has one change of the weights for each.")
TRUST = typer.Option("--trust-remote-code", help="Run Python code that comes with the model or the adapter.")
PROMPT = "question> "
HELP = "Type a question; /image FILE and /audio FILE choose what it is about, /clear forgets them, Ctrl-D ends."


def command(
    study: Annotated[Path, STUDY],
    question: Annotated[str | None, QUESTION] = None,
    image: Annotated[list[Path] | None, IMAGE] = None,
    audio: Annotated[list[Path] | None, AUDIO] = None,
    base: Annotated[bool, BASE] = True,
    max_tokens: Annotated[int, MAX_TOKENS] = 256,
    model: Annotated[str | None, MODEL] = None,
    device: Annotated[str, DEVICE] = "",
    task: Annotated[str | None, TASK] = None,
    trust_remote_code: Annotated[bool, TRUST] = False,
) -> None:
    """Ask the trained adapter about a picture, a sound or a text, with the base model's answer beside it.

    Answers are greedy: at every position the likeliest token.

    Example: marslora try studies/llava-1a2b3c4d --image cat.png --question "What is this?"
    """
    from marslora.deployment.ask import open_answerer

    console = PlainConsole()
    answerer = open_answerer(study, model=model, device=device, task=task, trust_remote_code=trust_remote_code)
    conversation = _Conversation(answerer, console, image or [], audio or [], base, max_tokens)
    if question is not None:
        conversation.ask(question)
    else:
        conversation.run()


class _Conversation:
    """Questions from the keyboard, each about the pictures and sounds that were chosen last."""

    def __init__(
        self, answerer: Answerer, console: Console, images: list[Path], sounds: list[Path], base: bool, max_tokens: int
    ) -> None:
        self.answerer, self.console = answerer, console
        self.images, self.sounds = list(images), list(sounds)
        self.base, self.max_tokens = base, max_tokens

    def ask(self, question: str) -> None:
        """Print the answers to one question."""
        images, sounds = [str(path) for path in self.images], [str(path) for path in self.sounds]
        answers = self.answerer.ask(question, images, sounds, base=self.base, max_tokens=self.max_tokens)
        if answers.base is not None:
            print_line(self.console, ("base     ", "dim"), answers.base)
        print_line(self.console, ("adapter  ", "bold"), answers.adapted)

    def run(self) -> None:
        """Answer questions until the input ends; a question that cannot be asked is explained, and the next is read."""
        print_line(self.console, (HELP, "dim"))
        while (line := self._read()) is not None:
            try:
                self._follow(line)
            except DataError as error:
                print_line(self.console, ("error: ", "red"), str(error))

    def _follow(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word in ("/image", "/audio"):
            chosen = self.images if word == "/image" else self.sounds
            chosen[:] = [Path(name) for name in shlex.split(rest)]
        elif word == "/clear":
            self.images, self.sounds = [], []
        elif line.startswith("/"):
            print_line(self.console, f"There is no command {word}. {HELP}")
        elif line:
            self.ask(line)

    def _read(self) -> str | None:
        """The next line; None at the end of the input. Ctrl-C ends it too."""
        try:
            return input(PROMPT if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return None
