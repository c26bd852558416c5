"""The contrastive start: the mean of a picture's visual tokens should point to the mean of its name's embeddings."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pictures import Picture
from torch import Tensor

BATCH, RATE, DECAY, DROPOUT, EPOCHS = 512, 1e-3, 0.1, 0.1, 14


def start_projector(projector, tokens_NTC: Tensor, deviation: float) -> None:
    """Standardise the tower's channels, some of which are far larger than others, and draw the rest at their scale."""
    tokens = F.layer_norm(tokens_NTC, tokens_NTC.shape[-1:])
    mean, spread = tokens.mean((0, 1)), tokens.std((0, 1)).clamp_min(1e-3)
    with torch.no_grad():
        projector.layer_norm.weight.copy_(1 / spread)
        projector.layer_norm.bias.copy_(-mean / spread)
        for linear, gain in ((projector.linear_1, 1.0), (projector.linear_2, 1.7 * deviation)):
            torch.nn.init.normal_(linear.weight, std=gain * linear.in_features**-0.5)
            linear.bias.zero_()


def contrast(projector, shuffle, views: Sequence[Tensor], pictures: Sequence[Picture], names_NC: Tensor) -> None:
    """Train the projector: InfoNCE both ways; pictures of one name are each other's positives.

    Args:
        projector: What is trained.
        shuffle: From patches to the projector's inputs.
        views: Patches of all pictures, one tensor per view; epochs take them in turn.
        pictures: What is known of them.
        names_NC: The mean embedding of each picture's name.
    """
    train = torch.tensor([index for index, picture in enumerate(pictures) if not picture.is_held])
    held = torch.tensor([index for index, picture in enumerate(pictures) if picture.is_held])
    number = {name: k for k, name in enumerate(dict.fromkeys(picture.name for picture in pictures))}
    ids = torch.tensor([number[picture.name] for picture in pictures])
    centre = names_NC[train].mean(0)
    target = F.normalize(names_NC - centre, dim=-1)
    warmth = torch.nn.Parameter(torch.tensor(2.3))
    matrices = [p for p in projector.parameters() if p.ndim > 1]
    rest = [p for p in projector.parameters() if p.ndim < 2] + [warmth]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps, step, start = EPOCHS * (len(train) // BATCH), 0, time.perf_counter()
    for epoch in range(EPOCHS):
        for batch in train[torch.randperm(len(train))].split(BATCH)[: len(train) // BATCH]:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / 20) * min(1, 2 * (1 - step / steps))
            with torch.autocast("cpu", torch.bfloat16):
                seen = projector(F.dropout(shuffle(views[epoch % len(views)][batch]), DROPOUT)).mean(1)
            logits = F.normalize(seen.float(), dim=-1) @ target[batch].T * warmth.exp()
            same = (ids[batch][:, None] == ids[batch][None]).float()
            same /= same.sum(1, keepdim=True)
            loss = -sum((F.log_softmax(each, 1) * same).sum(1).mean() for each in (logits, logits.T)) / 2
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        share = measure_retrieval(projector, shuffle(views[0][held]), target[held], ids[held])
        print(f"contrast {epoch + 1}: loss {loss:.2f}, held-out names found {share:.0%}, "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
    with torch.no_grad():  # to where embeddings lie, at their scale
        seen = projector(shuffle(views[0][train[:1000]]))
        gain = (names_NC - centre).pow(2).mean().sqrt() / seen.mean(1).pow(2).mean().sqrt()
        projector.linear_2.weight.mul_(gain)
        projector.linear_2.bias.mul_(gain).add_(centre)


@torch.no_grad()
def measure_retrieval(projector, tokens_NTC: Tensor, target_NC: Tensor, ids_N: Tensor) -> float:
    """Share of pictures whose own name is nearest among all of theirs."""
    scores = projector(tokens_NTC).mean(1) @ target_NC.T
    return (ids_N[scores.argmax(1)] == ids_N).float().mean().item()
