"""Flow networks: groups of nodes joined by dense capacity blocks, links and terminals.

One structure carries every architecture: an edge set between two groups of nodes is a dense
block (attention from one layer to the next), a few single edges are links (residuals, the
unrolled generation), and a super-source and a super-sink are attached to chosen nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowopt.errors import InputError
from flowopt.lazy import lazy
from flowopt.network.parts import (
    Block,
    FloatArray,
    Link,
    capacity_array,
    check_indices,
    index_array,
)

if TYPE_CHECKING:
    import networkx
    import scipy.sparse as sp

    from flowopt.network.graph import Edges, Graph, PruneReport


@dataclass(frozen=True, eq=False)
class FlowNetwork:
    """An immutable capacitated network with a super-source and a super-sink.

    Parameters
    ----------
    groups : mapping of str to int
        Name and number of nodes of each group.
    blocks : sequence of Block
        Dense edge sets.
    links : sequence of Link
        Single edges.
    sources, sinks : mapping of str to sequence of int
        Nodes that the super-source feeds and from which the super-sink takes, without limit.
    node_capacity : mapping of str to array_like, optional
        Limit on the flow through each node of a group, shape (n,); infinity means none. Such
        nodes are split in two, joined by an edge of that capacity (which the barrier sees too).
    players : str, optional
        The group whose node flows are the attributions; by default the first group with sinks.
    return_capacity : float, optional
        Limit of the edge that returns the flow from sink to source, so of |f|. None: unlimited.

    Raises
    ------
    InputError
        For unknown groups, shapes that do not fit, capacities that are negative, NaN or
        infinite, directed cycles, or an unlimited path from source to sink.
    """

    groups: Mapping[str, int]
    blocks: Sequence[Block] = ()
    links: Sequence[Link] = ()
    sources: Mapping[str, Sequence[int]] = field(kw_only=True)
    sinks: Mapping[str, Sequence[int]] = field(kw_only=True)
    node_capacity: Mapping[str, ArrayLike] | None = field(default=None, kw_only=True)
    players: str | None = field(default=None, kw_only=True)
    return_capacity: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.groups, Mapping):
            raise InputError("groups must be a mapping of names to numbers of nodes.")
        if isinstance(self.blocks, Block) or isinstance(self.links, Link):
            raise InputError("Give blocks and links as lists, also when there is only one.")
        for kind, parts in ((Block, self.blocks), (Link, self.links)):
            wrong = next((part for part in parts if not isinstance(part, kind)), None)
            if wrong is not None:
                raise InputError(
                    f"{kind.__name__.lower()}s must hold {kind.__name__} objects, not "
                    f"{type(wrong).__name__}: flowopt.{kind.__name__}(tail, head, ...)."
                )
        sizes = self.groups.items()
        if any(isinstance(n, bool) or not isinstance(n, int | np.integer) for _, n in sizes):
            raise InputError("groups must map names to whole numbers of nodes.")
        groups = {str(name): int(size) for name, size in sizes}
        if not groups or min(groups.values()) < 1:
            raise InputError("A network needs at least one group, and every group at least 1 node.")
        set_ = object.__setattr__
        set_(self, "groups", MappingProxyType(groups))
        set_(self, "blocks", tuple(self.blocks))
        set_(self, "links", tuple(self.links))
        for block in self.blocks:
            self._check_groups(block.tail, block.head)
            expected = (groups[block.tail], groups[block.head])
            if block.capacity.shape != expected:
                raise InputError(
                    f"The block {block.tail} -> {block.head} has shape {block.capacity.shape}; "
                    f"its groups have {expected[0]} and {expected[1]} nodes."
                )
        for link in self.links:
            self._check_groups(link.tail, link.head)
            check_indices(link.pairs[:, 0], groups[link.tail], f"link tails in {link.tail!r}")
            check_indices(link.pairs[:, 1], groups[link.head], f"link heads in {link.head!r}")
        set_(self, "sources", self._terminals(self.sources, "sources"))
        set_(self, "sinks", self._terminals(self.sinks, "sinks"))
        for name in self.sources.keys() & self.sinks.keys():
            if set(self.sources[name]) & set(self.sinks[name]):
                raise InputError(f"A node of group {name!r} is both source and sink.")
        set_(self, "node_capacity", self._node_capacities())
        players = next(iter(self.sinks)) if self.players is None else self.players
        self._check_groups(players)
        set_(self, "players", players)
        back: Any = self.return_capacity
        if back is not None and not (
            isinstance(back, int | float | np.number) and 0 < back < np.inf
        ):
            raise InputError("return_capacity must be positive and finite, or None for no limit.")

    @classmethod
    def layered(
        cls,
        C: ArrayLike,
        sources: str | int | Iterable[int] = "all",
        node_capacity: ArrayLike | None = None,
    ) -> Self:
        """Network of a stack of attention layers.

        Parameters
        ----------
        C : array_like, shape (L, t, t)
            C[l, i, j] is the capacity of the edge from node i of layer l+1 to node j of layer l;
            layer 0 holds the input tokens. Finite, nonnegative.
        sources : "all", int or iterable of int
            Nodes of the top layer that the super-source feeds.
        node_capacity : array_like, shape (L + 1, t) or (t,), optional
            Limits on the flow through nodes; shape (t,) limits the input tokens only.

        Returns
        -------
        FlowNetwork
            Groups "layer0" .. "layerL"; block l joins layer l+1 to layer l; players "layer0".
        """
        array = capacity_array(C, 3, "the capacity array C")
        layers, t, columns = array.shape
        if t != columns or layers == 0 or t == 0:
            raise InputError(
                f"C must have shape (L, t, t) with L >= 1 and t >= 1, not {array.shape}: one "
                "square matrix of capacities per layer."
            )
        names = [f"layer{depth}" for depth in range(layers + 1)]
        limits: dict[str, ArrayLike] | None = None
        if node_capacity is not None:
            limit = _limits(node_capacity, "layer0")
            if limit.shape == (t,):
                limits = {names[0]: limit}
            elif limit.shape == (layers + 1, t):
                limits = dict(zip(names, limit, strict=True))
            else:
                raise InputError(
                    f"node_capacity must have shape ({t},) for the input tokens or "
                    f"({layers + 1}, {t}) for all layers, not {limit.shape}."
                )
        return cls(
            groups={name: t for name in names},  # noqa: C420
            blocks=[Block(names[i + 1], names[i], array[i]) for i in range(layers)],
            sources={names[-1]: _source_indices(sources, t)},
            sinks={names[0]: range(t)},
            node_capacity=limits,
        )

    @classmethod
    def gaf(
        cls, C: ArrayLike, sources: str | int | Iterable[int] = "all", beta: int | None = None
    ) -> Self:
        """Network of Generalized Attention Flow, as its re-implementations build it.

        The attention capacities are gamma-scaled, every terminal edge has capacity t, and a
        return edge limits |f| to the sum of all other capacities; all of them carry barrier
        terms. Use it with ``LogBarrier(mu, relative=False)``.

        Parameters
        ----------
        C : array_like, shape (L, t, t)
            Capacities as for `layered`.
        sources : "all", int or iterable of int
            Top nodes joined to the source.
        beta : int, optional
            Exponent of the gamma scaling; None reads it off the attention capacities.
        """
        from flowopt.capacities import GammaScale

        scaled = GammaScale(beta=beta)(capacity_array(C, 3, "the capacity array C"))
        inner = cls.layered(scaled, sources)
        t = inner.groups["layer0"]
        top = f"layer{len(inner.blocks)}"
        feed = np.zeros((1, t))
        feed[0, inner.sources[top]] = t
        blocks = [*inner.blocks, Block("source", top, feed)]
        blocks.append(Block("layer0", "sink", np.full((t, 1), float(t))))
        return cls(
            groups={"source": 1, **inner.groups, "sink": 1},
            blocks=blocks,
            sources={"source": [0]},
            sinks={"sink": [0]},
            players="layer0",
            return_capacity=float(sum(block.capacity.sum() for block in blocks)),
        )

    @lazy
    def graph(self) -> Graph:
        """The pruned network flattened for computing."""
        from flowopt.network.build import build_graph

        return build_graph(self)

    @lazy
    def max_flow(self) -> float:
        """F*, the value of the plain maximum flow, certified by a minimum cut.

        Raises
        ------
        SolverError
            If no certified maximum flow was found.
        """
        from flowopt.solvers.push_relabel import maximum_value

        return maximum_value(self)

    @property
    def edges(self) -> Edges:
        """The edges that pruning keeps: blocks in order, row-major, then links."""
        return self.graph.edges

    @property
    def pruned(self) -> PruneReport:
        """What was dropped, and why."""
        return self.graph.report

    @property
    def capacity(self) -> FloatArray:
        """Capacities of the kept edges, shape (m,); infinite on unlimited links."""
        return self.edges.capacity

    @property
    def n_players(self) -> int:
        """Number of nodes in the players' group."""
        return self.groups[self._players]

    def value(self, flow: Any) -> Any:
        """|f|, as a number or a CVXPY expression, of a flow over the kept edges."""
        return self.edges.value_vector @ flow

    def inflow(self, flow: Any) -> Any:
        """Flow through each player, shape (n_players,), of a flow over the kept edges."""
        return self.edges.player_matrix @ flow

    def incidence(self) -> sp.csr_array:
        """Conservation as a matrix: ``incidence() @ flow == 0`` at every inner node.

        Returns
        -------
        scipy.sparse.csr_array, shape (inner nodes, kept edges)
            +1 where the edge leaves the node, -1 where it enters.
        """
        return self.edges.incidence

    def scaled(self, factor: float) -> FlowNetwork:
        """The same network with every finite capacity multiplied by `factor`."""
        if not (0 < factor < np.inf):
            raise InputError("The factor must be positive and finite.")
        limits = self.node_capacity or {}
        back: Any = self.return_capacity
        links = [
            Link(k.tail, k.head, k.pairs, None if k.capacity is None else k.capacity * factor)
            for k in self.links
        ]
        return FlowNetwork(
            self.groups,
            [Block(b.tail, b.head, b.capacity * factor) for b in self.blocks],
            links,
            sources=self.sources,
            sinks=self.sinks,
            node_capacity={g: np.asarray(c) * factor for g, c in limits.items()} or None,
            players=self.players,
            return_capacity=None if back is None else back * factor,
        )

    def to_networkx(self) -> networkx.DiGraph[Any]:
        """The kept network as a networkx DiGraph from ``"source"`` to ``"sink"``.

        Nodes are (group, index); a node with a limit is split, its second half being
        (group, index, "out"). Unlimited edges have no `capacity` attribute, as networkx expects.
        """
        from flowopt.network.export import to_networkx

        return to_networkx(self)

    def __repr__(self) -> str:
        nodes = sum(self.groups.values())
        edges = sum(b.capacity.size for b in self.blocks) + sum(len(k.pairs) for k in self.links)
        return f"FlowNetwork({len(self.groups)} groups, {nodes} nodes, {edges} possible edges)"

    def __reduce__(self) -> tuple[Any, ...]:  # the mapping proxies cannot be pickled
        limits = self.node_capacity
        plain = (dict(self.groups), self.blocks, self.links, dict(self.sources), dict(self.sinks))
        rest = (None if limits is None else dict(limits), self.players, self.return_capacity)
        return _rebuilt, (type(self), *plain, *rest)

    @property
    def _players(self) -> str:
        assert self.players is not None  # set by __post_init__
        return self.players

    def _check_groups(self, *names: str) -> None:
        for name in names:
            if name not in self.groups:
                known = ", ".join(self.groups)
                raise InputError(f"Unknown group {name!r}; the groups are: {known}.")

    def _terminals(
        self, terminals: Mapping[str, Sequence[int]], kind: str
    ) -> Mapping[str, tuple[int, ...]]:
        checked: dict[str, tuple[int, ...]] = {}
        if not isinstance(terminals, Mapping):
            raise InputError(f"{kind} must map names of groups to lists of node indices.")
        for name, indices in terminals.items():
            self._check_groups(name)
            if not isinstance(indices, Iterable):
                raise InputError(f"{kind} in group {name!r} must be a list of node indices.")
            array = np.unique(index_array(list(indices), f"{kind} in group {name!r}"))
            check_indices(array, self.groups[name], f"{kind} in group {name!r}")
            if array.size:
                checked[name] = tuple(int(i) for i in array)
        if not checked:
            raise InputError(f"A network needs at least one node in `{kind}`.")
        return MappingProxyType(checked)

    def _node_capacities(self) -> Mapping[str, FloatArray] | None:
        if not self.node_capacity:
            return None
        checked: dict[str, FloatArray] = {}
        for name, limit in self.node_capacity.items():
            self._check_groups(name)
            array = _limits(limit, name)
            if array.shape != (self.groups[name],):
                raise InputError(
                    f"node_capacity of group {name!r} must have shape ({self.groups[name]},), "
                    f"not {array.shape}."
                )
            if np.isnan(array).any() or (array < 0).any():
                raise InputError(f"node_capacity of group {name!r} holds NaN or negative limits.")
            array.setflags(write=False)
            checked[name] = array
        return MappingProxyType(checked)


def _limits(values: ArrayLike, group: str) -> FloatArray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"node_capacity of group {group!r} must be an array of numbers, not {values!r}."
        ) from None


def _rebuilt(
    cls: type[FlowNetwork],
    groups: dict[str, int],
    blocks: Sequence[Block],
    links: Sequence[Link],
    sources: dict[str, Sequence[int]],
    sinks: dict[str, Sequence[int]],
    node_capacity: dict[str, ArrayLike] | None,
    players: str,
    return_capacity: float | None,
) -> FlowNetwork:
    """Network from a pickle."""
    return cls(
        groups,
        blocks,
        links,
        sources=sources,
        sinks=sinks,
        node_capacity=node_capacity,
        players=players,
        return_capacity=return_capacity,
    )


def _source_indices(sources: str | int | Iterable[int], t: int) -> Sequence[int]:
    if isinstance(sources, str):
        if sources != "all":
            raise InputError(f"sources must be 'all' or indices of top nodes, not {sources!r}.")
        return range(t)
    if isinstance(sources, int | np.integer) and not isinstance(sources, bool):
        sources = [int(sources)]
    if not isinstance(sources, Iterable):
        raise InputError(f"sources must be 'all' or indices of top nodes, not {sources!r}.")
    indices = index_array(list(sources), "sources").tolist()
    if any(not -t <= i < t for i in indices):
        raise InputError(f"sources must lie in {-t}..{t - 1}, got {indices}.")
    return [i % t for i in indices]
