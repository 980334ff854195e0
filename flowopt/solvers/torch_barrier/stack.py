"""Which networks are one stack of blocks, and which of them go well together in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowopt.network import FlowNetwork

WASTE = 1.5  # most padded edges of a batch, as a multiple of the edges that are there


@dataclass(frozen=True)
class Stack:
    """A network whose groups form one chain, from the sinks up to the sources.

    Attributes
    ----------
    groups : tuple of str
        From the bottom up.
    blocks : tuple of int
        Numbers of the network's blocks; blocks[l] joins groups[l + 1] to groups[l].
    widest : int
        Nodes of the largest group.
    """

    groups: tuple[str, ...]
    blocks: tuple[int, ...]
    widest: int


def stack_of(net: FlowNetwork) -> Stack | None:
    """The chain that a network is; None if it is none, or limits more than its blocks."""
    if net.links or net.node_capacity or net.return_capacity is not None or not net.blocks:
        return None
    above = {block.head: i for i, block in enumerate(net.blocks)}
    tails = {block.tail for block in net.blocks}
    bottoms = [name for name in net.groups if name not in tails]
    if len(above) < len(net.blocks) or len(tails) < len(net.blocks) or len(bottoms) != 1:
        return None
    groups, blocks = [bottoms[0]], []
    while groups[-1] in above:
        blocks.append(above[groups[-1]])
        groups.append(net.blocks[blocks[-1]].tail)
    if len(groups) < len(net.groups):
        return None
    if set(net.sources) != {groups[-1]} or set(net.sinks) != {groups[0]}:
        return None
    return Stack(tuple(groups), tuple(blocks), max(net.groups.values()))


def buckets(stacks: Sequence[Stack], most: int) -> list[list[int]]:
    """Positions of the stacks to solve together, widest first.

    Parameters
    ----------
    most : int
        Padded edges that a batch may have, unless one network alone has more.
    """

    def edges(i: int) -> int:
        return len(stacks[i].blocks) * stacks[i].widest ** 2

    order = sorted(
        range(len(stacks)), key=lambda i: (stacks[i].widest, len(stacks[i].blocks)), reverse=True
    )
    found: list[list[int]] = []
    layers = real = 0
    for i in order:
        deeper = max(layers, len(stacks[i].blocks))
        if found:
            padded = (len(found[-1]) + 1) * deeper * stacks[found[-1][0]].widest ** 2
            if padded <= min(most, WASTE * (real + edges(i))):
                found[-1].append(i)
                layers, real = deeper, real + edges(i)
                continue
        found.append([i])
        layers, real = len(stacks[i].blocks), edges(i)
    return found
