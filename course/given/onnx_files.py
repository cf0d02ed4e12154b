"""What exercise 01 does to an exported file, besides its lesson."""

from pathlib import Path

import onnx


def move_weights_out(path: Path) -> None:
    """Move a model's weights into a second file beside its graph.

    Its name holds the time, so that graph and weights of two exports are never mixed up.
    """
    data = path.with_name(f"{path.stem}-{path.stat().st_mtime_ns}.data")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data.name)
    data.chmod(path.stat().st_mode)  # onnx makes it readable by its owner alone


def size(path: Path) -> int:
    """The bytes of a model file, with those of its weights in a second file."""
    return sum(file.stat().st_size for file in [path, *path.parent.glob(f"{path.stem}-[0-9]*.data")])


def remove_source_paths(model: onnx.ModelProto) -> None:
    """Remove the source paths that the torch.export-based exporter stores in each node: they are of this machine."""
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
