"""The picture of exercise 06: the first block of a network, before and after its graph was optimised."""

from pathlib import Path

import onnx

from course.base.reports import save_picture

COLOURS = {"Conv": "#9ec5fe", "FusedConv": "#f9c784", "nchwc.Conv": "#f28482"}
HALF = 0.31  # of the height of a box


def without_domain(operator: str) -> str:
    """An operator's name as tables and picture show it: without the domain that all of ONNX Runtime's own share."""
    return operator.removeprefix("com.microsoft.")


def first_block(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes up to the first that joins two branches, and the Relu behind it; all nodes where none does."""
    constants = {tensor.name for tensor in graph.initializer}
    for i, node in enumerate(graph.node):
        if len([tensor for tensor in node.input if tensor and tensor not in constants]) > 1:
            behind = [other for other in graph.node if node.output[0] in other.input]
            relu = behind[:1] if [other.op_type for other in behind] == ["Relu"] else []
            needed, found = set(node.input), [node, *relu]
            for earlier in reversed(graph.node[:i]):
                if needed.intersection(earlier.output):
                    needed |= set(earlier.input)
                    found.insert(0, earlier)
            return found
    return list(graph.node)


def draw_first_blocks(shown: dict[str, tuple[Path, list[dict]]], path: Path) -> None:
    """One column for each file: a box for each node from top to bottom, arcs for what skips nodes."""
    import matplotlib.pyplot as plt

    columns = {}
    for name, (file, found) in shown.items():
        nodes = first_block(onnx.load(file).graph)
        columns[name] = (nodes, {fusion["output"]: " + ".join(fusion["from"]) for fusion in found})
    height = max(len(nodes) for nodes, _ in columns.values())
    size = (3.9 * len(columns), 0.95 * height + 1.6)
    figure, plots = plt.subplots(1, len(columns), figsize=size, layout="constrained")
    for plot, (name, (nodes, parts)) in zip(plots, columns.items(), strict=True):
        _draw(plot, nodes, parts)
        plot.set(title=f"{name}: {len(nodes)} nodes", xlim=(-2.1, 2.1), ylim=(-height - 0.2, 1.0))
        plot.axis("off")
    save_picture(figure, path, "The first block before and after graph optimisation")


def _draw(plot, nodes: list[onnx.NodeProto], parts: dict[str, str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    def text(y: float, words: str, **options) -> None:
        plot.text(0, y, words, ha="center", va="center", **options)

    def arrow(start: tuple[float, float], end: tuple[float, float], **options) -> None:
        look = {"arrowstyle": "-|>", "color": "#444444", "shrinkA": 0, "shrinkB": 0, **options}
        plot.annotate("", end, start, arrowprops=look)

    made_at = {tensor: i for i, node in enumerate(nodes) for tensor in node.output}
    text(0.75, nodes[0].input[0], style="italic")
    arrow((0, 0.6), (0, HALF))
    for i, node in enumerate(nodes):
        name = without_domain(f"{node.domain}.{node.op_type}".removeprefix("."))
        look = {"facecolor": COLOURS.get(name, "#f2f2f2"), "edgecolor": "#444444"}
        look["boxstyle"] = "round,pad=0,rounding_size=0.1"
        plot.add_patch(FancyBboxPatch((-1.25, -i - HALF), 2.5, 2 * HALF, **look))
        fused = parts.get(node.output[0])
        text(-i + (0.1 if fused else 0), name, weight="bold")
        if fused:
            text(-i - 0.15, f"does {fused}", fontsize="small")
        for source in (made_at[tensor] for tensor in node.input if tensor in made_at):
            if source == i - 1:
                arrow((0, -source - HALF), (0, -i + HALF))
            else:
                bend = f"arc3,rad={-0.9 / (i - source) - 0.12}"
                arrow((1.25, -source), (1.25, -i), color="#c1121f", connectionstyle=bend)
    last = -len(nodes) + 1
    arrow((0, last - HALF), (0, last - 1 + HALF + 0.05))
    text(last - 1 + HALF - 0.12, "second block", style="italic")
