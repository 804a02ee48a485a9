"""TensorFlow.js graph models, read as data.

A model is a JSON file of nodes and a file of weights. No code in them is executed: a node names an operation from a
fixed list, and any other operation is rejected. ONNX Runtime runs the graph, in half the time of TensorFlow.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from graphlib import TopologicalSorter

import numpy as np

import utils
from onnx_graph import GraphBuilder

_TYPES = {"float32": np.float32, "int32": np.int32, "float16": np.float16}


@dataclass(frozen=True, eq=False)
class Graph:
    """A TensorFlow.js graph model.

    Attributes
    ----------
    nodes : dict
        Name -> (operation, names of its inputs, attributes).
    weights : dict of ndarray
    placeholder : str
        Name of the only input.
    """

    nodes: dict[str, tuple[str, list[str], dict]]
    weights: dict[str, np.ndarray]
    placeholder: str

    def run(self, inputs: np.ndarray, output: str) -> np.ndarray:
        """Compute the node `output` for each row of the inputs, float32 (n, ...); rows do not depend on each other.

        Raises
        ------
        ValueError
            If the graph has no such node, it has a cycle, or an operation is not in `_OPERATIONS`.
        """
        session = _session(self, output, inputs.shape[1:])
        # Layers of several images at once would not stay in the processor's cache.
        return np.concatenate([session.run(None, {"inputs": row[None]})[0] for row in inputs])

    def _order(self, output: str) -> list[str]:
        """The nodes to compute for `output`, each after its inputs."""
        needed, waiting = {}, [output]
        while waiting:
            name = waiting.pop()
            if name in needed or name in self.weights or name == self.placeholder:
                continue
            if name not in self.nodes:
                raise ValueError(f"the graph has no node {name!r}")
            operation, sources, _ = self.nodes[name]
            if operation not in _OPERATIONS:
                raise ValueError(f"the graph uses the operation {operation!r}, which is not supported")
            needed[name] = sources
            waiting += sources
        return [name for name in TopologicalSorter(needed).static_order() if name in needed]


def read_graph(model: bytes, weights: bytes) -> Graph:
    """Read a TensorFlow.js graph model from its JSON and its weights.

    Weights must be float32, int32, or float32 stored as float16.

    Raises
    ------
    ValueError
        If they are not a graph model, or do not match.
    """
    try:
        content = utils.parse_json(model)
        nodes = {
            node["name"]: (
                node["op"],
                [name.removesuffix(":0") for name in node.get("input", [])],  # every node has one output
                {name: _attribute(value) for name, value in node.get("attr", {}).items()},
            )
            for node in content["modelTopology"]["node"]
        }
        values, start = {}, 0
        for group in content["weightsManifest"]:
            for entry in group["weights"]:
                values[entry["name"]], start = _weight(entry, weights, start)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a complete TensorFlow.js graph model ({error!r})") from error
    if start != len(weights):
        raise ValueError(f"the graph lists {start} bytes of weights, but the file has {len(weights)}")
    placeholders = [name for name, (operation, *_) in nodes.items() if operation == "Placeholder"]
    if len(placeholders) != 1:
        raise ValueError(f"the graph must have one input, got {len(placeholders)} inputs")
    return Graph(nodes, values, placeholders[0])


def _weight(entry: dict, data: bytes, start: int) -> tuple[np.ndarray, int]:
    """One array of weights, and the start of the next."""
    quantization = entry.get("quantization", {})
    stored = quantization.get("dtype", entry["dtype"])
    if entry["dtype"] not in ("float32", "int32") or stored not in _TYPES or "scale" in quantization:
        raise ValueError(f"weights {entry['name']!r} are stored as {stored}, which is not supported")
    shape = [int(side) for side in entry["shape"]]
    count = int(np.prod(shape, dtype=object)) if shape else 1
    end = start + count * np.dtype(_TYPES[stored]).itemsize
    if min(shape, default=1) < 0 or end > len(data):
        raise ValueError(f"weights {entry['name']!r} go past the end of the file")
    values = np.frombuffer(data, _TYPES[stored], count, start).reshape(shape)
    return values.astype(_TYPES[entry["dtype"]]), end


def _attribute(value: dict):
    """A protocol buffer's value in JSON as a plain one."""
    if "list" in value:
        return [_attribute({kind: one}) for kind, many in value["list"].items() for one in many]
    if "s" in value:
        return base64.b64decode(value["s"]).decode()
    if "i" in value:
        return int(value["i"])
    return next((value[kind] for kind in ("b", "f") if kind in value), None)


# ----------------------------------------------------------------------------------------------------------
# Operations: function(graph, attributes, *inputs) -> name of the output
# ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _session(graph: Graph, output: str, shape: tuple[int, ...]):
    """A session for rows of a shape; images stay (n, h, w, c), and ONNX Runtime removes most of the transpositions."""
    order, builder = graph._order(output), _Builder(graph)
    for name in order:
        operation, sources, attributes = graph.nodes[name]
        builder.names[name] = _OPERATIONS[operation](builder, attributes, *sources)
    return builder.session("inputs", ["n", *shape], builder.names[output])


class _Builder(GraphBuilder):
    """Translates the nodes of a graph."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.nodes, self.weights = graph.nodes, graph.weights
        self.names = {graph.placeholder: "inputs"}

    def name(self, source: str) -> str:
        """The name of a node, or of weights."""
        if source not in self.names:
            self.names[source] = self.constant(self.weights[source])
        return self.names[source]

    def over(self, operation: str, *sources: str, **attributes) -> str:
        """Add an operation on nodes or weights."""
        return self.add(operation, *map(self.name, sources), **attributes)

    def over_images(self, operation: str, source: str, *constants: np.ndarray, **attributes) -> str:
        """Add an operation on images (n, c, h, w)."""
        planes = self.add("Transpose", self.name(source), perm=[0, 3, 1, 2])
        output = self.add(operation, planes, *map(self.constant, constants), **attributes)
        return self.add("Transpose", output, perm=[0, 2, 3, 1])


def _plain(operation: str) -> Callable:
    return lambda graph, attributes, *sources: graph.over(operation, *sources)


def _window_options(attributes: dict) -> dict:
    """Strides and padding of a convolution or pooling."""
    if attributes.get("data_format", "NHWC") != "NHWC" or attributes.get("padding") not in ("SAME", "VALID"):
        raise ValueError("the graph has a convolution of a form that is not supported")
    if attributes.get("dilations", [1, 1, 1, 1]) != [1, 1, 1, 1]:
        raise ValueError("the graph has a dilated convolution, which is not supported")
    padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}[attributes["padding"]]
    return {"strides": attributes["strides"][1:3], "auto_pad": padding}


def _convolution(graph: _Builder, attributes: dict, x: str, kernel: str) -> str:
    turned = graph.weights[kernel].transpose(3, 2, 0, 1)  # (out, in, h, w)
    return graph.over_images("Conv", x, turned, **_window_options(attributes))


def _convolution_of_each_channel(graph: _Builder, attributes: dict, x: str, kernel: str) -> str:
    height, width, channels, multiplier = graph.weights[kernel].shape
    turned = graph.weights[kernel].transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return graph.over_images("Conv", x, turned, group=channels, **_window_options(attributes))


def _pool(graph: _Builder, attributes: dict, x: str) -> str:
    return graph.over_images(
        "MaxPool", x, kernel_shape=attributes["ksize"][1:3], **_window_options(attributes)
    )


def _product(graph: _Builder, attributes: dict, x: str, matrix: str) -> str:
    sides = {name: int(attributes.get(f"transpose_{name}", False)) for name in "ab"}
    return graph.over("Gemm", x, matrix, transA=sides["a"], transB=sides["b"])


def _reduce(operation: str) -> Callable:
    def run(graph: _Builder, attributes: dict, x: str, axes: str) -> str:
        kept = int(attributes.get("keep_dims") or False)
        return graph.over(operation, x, axes=graph.weights[axes].ravel().tolist(), keepdims=kept)

    return run


def _maximum(graph: _Builder, attributes: dict, a: str, b: str) -> str:
    operation, sources, _ = graph.nodes.get(a, ("", [], {}))
    limits = [graph.weights.get(name) for name in (b, *sources[1:])]
    if operation == "Minimum" and all(limit is not None and limit.ndim == 0 for limit in limits):
        # One operation for both limits becomes part of the convolution.
        return graph.add("Clip", graph.name(sources[0]), graph.name(b), graph.name(sources[1]))
    return graph.over("Max", a, b)


def _pad(graph: _Builder, attributes: dict, x: str, widths: str) -> str:
    return graph.add("Pad", graph.name(x), graph.constant(graph.weights[widths].T.ravel().astype(np.int64)))


def _join(graph: _Builder, attributes: dict, *sources: str) -> str:
    return graph.over("Concat", *sources[:-1], axis=int(graph.weights[sources[-1]]))


#: Steps that can be fused with a product: the ONNX operation, and the number of further inputs that it takes.
_FUSED: dict[str, tuple[str, int]] = {"BiasAdd": ("Add", 1), "Prelu": ("PRelu", 1), "Relu": ("Relu", 0)}


def _fused(operation: Callable) -> Callable:
    """A product, then the steps in ``fused_ops``."""

    def run(graph: _Builder, attributes: dict, x: str, kernel: str, *others: str) -> str:
        y = operation(graph, attributes, x, kernel)
        for step in attributes.get("fused_ops", []):
            name, count = _FUSED.get(step, (None, 0))
            if name is None or count > len(others):
                raise ValueError(f"the graph fuses {step!r} with a product, which is not supported")
            y, others = graph.add(name, y, *map(graph.name, others[:count])), others[count:]
        return y

    return run


_OPERATIONS: dict[str, Callable] = {
    "Conv2D": _convolution,
    "_FusedConv2D": _fused(_convolution),
    "DepthwiseConv2dNative": _convolution_of_each_channel,
    "_FusedMatMul": _fused(_product),
    "MaxPool": _pool,
    "Max": _reduce("ReduceMax"),
    "Mean": _reduce("ReduceMean"),
    "Pad": _pad,
    "ConcatV2": _join,
    "Prelu": _plain("PRelu"),
    "Add": _plain("Add"),
    "AddV2": _plain("Add"),
    "Mul": _plain("Mul"),
    "Minimum": _plain("Min"),
    "Maximum": _maximum,
    "Relu": _plain("Relu"),
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _plain("Softmax"),
    "Identity": _plain("Identity"),
}
