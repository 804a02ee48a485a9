"""TensorFlow.js graph models, read as data.

A model is a JSON file of nodes and a file of weights. No code in them is executed: a node names an operation from a
fixed list, and any other operation is rejected.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter

import numpy as np

import utils

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
        """Compute the node `output` for a batch of inputs.

        Raises
        ------
        ValueError
            If the graph has no such node, it has a cycle, or an operation is not in `_OPERATIONS`.
        """
        order = self._order(output)
        last = {source: i for i, name in enumerate(order) for source in self.nodes[name][1]}
        values = {self.placeholder: _tensorflow().constant(inputs)}
        for i, name in enumerate(order):
            operation, sources, attributes = self.nodes[name]
            given = [values[s] if s in values else self.weights[s] for s in sources]
            values[name] = _OPERATIONS[operation](attributes, *given)
            for source in sources:  # free what no later node needs: a batch's layers take gigabytes
                if last[source] == i:
                    values.pop(source, None)
        return np.asarray(values[output])

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
# Operations: function(attributes, *inputs) -> output
# ----------------------------------------------------------------------------------------------------------


@cache
def _tensorflow():
    utils.import_quietly("tensorflow")
    import tensorflow

    return tensorflow


def _window_options(attributes: dict) -> dict:
    """Strides and padding of a convolution or pooling."""
    if attributes.get("data_format", "NHWC") != "NHWC" or attributes.get("padding") not in ("SAME", "VALID"):
        raise ValueError("the graph has a convolution of a form that is not supported")
    if attributes.get("dilations", [1, 1, 1, 1]) != [1, 1, 1, 1]:
        raise ValueError("the graph has a dilated convolution, which is not supported")
    return {"strides": attributes["strides"], "padding": attributes["padding"]}


def _convolution(attributes: dict, x, kernel):
    return _tensorflow().nn.conv2d(x, kernel, **_window_options(attributes))


def _product(attributes: dict, x, matrix):
    turned = {name: attributes.get(name, False) for name in ("transpose_a", "transpose_b")}
    return _tensorflow().linalg.matmul(x, matrix, **turned)


def _prelu(x, slope):
    return _tensorflow().nn.relu(x) + slope * _tensorflow().minimum(x, 0.0)


#: Steps that can be fused with a product, and the number of inputs that each takes.
_FUSED: dict[str, tuple[Callable, int]] = {
    "BiasAdd": (lambda x, bias: x + bias, 1),
    "Prelu": (_prelu, 1),
    "Relu": (lambda x: _tensorflow().nn.relu(x), 0),
}


def _fused(operation: Callable) -> Callable:
    """A product, then the steps in ``fused_ops``."""

    def run(attributes: dict, x, kernel, *others):
        y = operation(attributes, x, kernel)
        for step in attributes.get("fused_ops", []):
            function, count = _FUSED.get(step, (None, 0))
            if function is None or count > len(others):
                raise ValueError(f"the graph fuses {step!r} with a product, which is not supported")
            y, others = function(y, *others[:count]), others[count:]
        return y

    return run


_OPERATIONS: dict[str, Callable] = {
    "Conv2D": _convolution,
    "_FusedConv2D": _fused(_convolution),
    "DepthwiseConv2dNative": lambda attributes, x, kernel: _tensorflow().nn.depthwise_conv2d(
        x, kernel, **_window_options(attributes)
    ),
    "_FusedMatMul": _fused(_product),
    "MaxPool": lambda attributes, x: _tensorflow().nn.max_pool2d(
        x, attributes["ksize"], **_window_options(attributes)
    ),
    "Max": lambda options, x, axes: _tensorflow().reduce_max(x, axes, options.get("keep_dims", False)),
    "Pad": lambda attributes, x, widths: _tensorflow().pad(x, widths),
    "ConcatV2": lambda attributes, *inputs: _tensorflow().concat(inputs[:-1], int(inputs[-1])),
    "Prelu": lambda attributes, x, slope: _prelu(x, slope),
    "Mean": lambda options, x, axes: _tensorflow().reduce_mean(x, axes, options.get("keep_dims", False)),
    "Add": lambda attributes, a, b: a + b,
    "AddV2": lambda attributes, a, b: a + b,
    "Mul": lambda attributes, a, b: a * b,
    "Minimum": lambda attributes, a, b: _tensorflow().minimum(a, b),
    "Maximum": lambda attributes, a, b: _tensorflow().maximum(a, b),
    "Relu": lambda attributes, x: _tensorflow().nn.relu(x),
    "Sigmoid": lambda attributes, x: _tensorflow().math.sigmoid(x),
    "Softmax": lambda attributes, x: _tensorflow().nn.softmax(x),
    "Identity": lambda attributes, x: x,
}
