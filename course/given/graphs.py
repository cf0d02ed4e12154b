"""Compares a graph with its optimised self: which new node does the work of which old ones."""

from onnx import GraphProto, NodeProto

MOVES = ("ReorderInput", "ReorderOutput")  # ONNX Runtime's: put a tensor into another layout, compute nothing
NOTHING = ("Identity", "Dropout")  # compute nothing when a model is served: they are removed, not fused


def work(old: GraphProto, new: GraphProto) -> list[list[NodeProto]]:
    """For each node of the new graph, the nodes of the old one whose work it does, in their order.

    Both graphs are in topological order. No new node does the work of folded constants and removed nodes. The evidence:
    1. The tensor that an old node gave is still there: the node that gives it now does its work. Or a new node has
       the old one's name, or its tensor's name with `_nchwc` behind (so does ONNX Runtime when it changes layouts).
    2. Otherwise, it works for the node that all users of its tensor went into: a Conv goes where its Relu is.
    3. Otherwise, it went into the node that gave its input: an Add and a Relu into the Conv before.
    For 2 and 3, the new node must take its inputs from the nodes that do the work of the old inputs.
    """
    made_by: dict[str, int] = {}  # a tensor of the new graph: the node that gives it, looking through MOVES
    named: dict[str, int] = {}  # a name: the node that has it
    takes: list[set] = []  # the nodes, or inputs of the graph, that a node takes its inputs from
    for i, node in enumerate(new.node):
        takes.append({made_by.get(tensor, tensor) for tensor in node.input})
        moves = node.op_type in MOVES
        made_by |= dict.fromkeys(node.output, made_by.get(node.input[0], node.input[0]) if moves else i)
        if node.name and not moves:
            named[node.name.removesuffix("_nchwc")] = i
    there = made_by.keys() | {tensor.name for tensor in new.initializer}

    certain: dict[str, int] = {}  # a tensor of the old graph: who does the work of the node that gave it, by 1
    ahead: dict[str, int | None] = {}  # by 1 or 2
    users: dict[str, set] = {}
    for node in reversed(old.node):
        names = [*node.output, node.name]
        found = [made_by[name] for name in node.output if name in made_by] + [named[n] for n in names if n in named]
        where = users.get(node.output[0], set())
        certain |= dict.fromkeys(node.output, found[0]) if found else {}
        ahead[node.output[0]] = found[0] if found else next(iter(where)) if len(where) == 1 else None
        for tensor in node.input:
            users.setdefault(tensor, set()).add(ahead[node.output[0]])

    done_by: dict[str, int | str] = {value.name: value.name for value in old.input}
    done_by = {name: name for name in done_by.keys() - {tensor.name for tensor in old.initializer}}
    result: list[list[NodeProto]] = [[] for _ in new.node]
    for node in old.node:
        tensor = node.output[0]
        sources = {done_by[name] for name in node.input if name in done_by}
        if node.op_type in NOTHING and tensor not in certain:
            done_by |= dict.fromkeys(node.output, next(iter(sources), tensor))
            continue
        gone = [done_by[name] for name in node.input if name in done_by and name not in there]
        behind = max((i for i in gone if isinstance(i, int)), default=None)
        candidates = [] if tensor in there else [ahead[tensor], behind]
        fits = [i for i in candidates if i is not None and sources and sources <= takes[i] | {i}]
        if found := [certain[tensor]] if tensor in certain else fits:
            done_by |= dict.fromkeys(node.output, found[0])
            if isinstance(found[0], int):
                result[found[0]].append(node)
    return result
