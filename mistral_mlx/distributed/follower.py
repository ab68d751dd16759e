"""A process that is not rank 0: it does the steps that rank 0 tells it, on its share of the model, until the end."""

from typing import cast

from mistral_mlx.kernels.memory import wired_memory
from mistral_mlx.model.mistral import Mistral

from .group import Group
from .part import Part
from .share import Share
from .twins import Followed

Texts = list[tuple[int, int, int]]  # the name of the cache, the tokens in it, the number of new ones


def follow(group: Group, share: Share, own: Mistral) -> int:
    """Do the steps of rank 0 with `own`, the modules of the share; return the exit status that it names at the end.

    Raises GroupError if a process is lost.
    """
    part, followed = Part(group, share, own.model.layers), Followed()
    with wired_memory():
        return _follow(group, share, part, followed)


def _follow(group: Group, share: Share, part: Part, followed: Followed) -> int:
    while True:
        group.wait()
        message = group.message()
        if message["do"] == "end":
            group.is_over = True
            return cast(int, message["status"])
        followed.take(message)
        texts = cast(Texts, message["texts"])
        caches, counts = [followed.cache(name, offset, share) for name, offset, _ in texts], [n for _, _, n in texts]
        if message["do"] == "by block":
            part.by_block(None, caches[0], counts[0])
        else:
            part.at_once(None, caches, counts)
