"""Run networks by ONNX Runtime in one thread: sessions, and graphs that are built operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: Versions of the operations and of the file format that every supported ONNX Runtime reads.
_OPSET, _FILE_VERSION = 17, 8


def open_session(model: bytes | str | Path, **options):
    """Open a session of one thread, because photos are processed by several processes.

    Parameters
    ----------
    model : bytes, str or Path
        An ONNX model, or its file.
    **options
        Attributes of ``onnxruntime.SessionOptions``.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    import onnxruntime  # slow to import

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    chosen.log_severity_level = 3
    for name, value in options.items():
        setattr(chosen, name, value)
    model = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])


class GraphBuilder:
    """Collects a network's operations and their weights; each method returns the name of its output."""

    def __init__(self):
        from onnx import helper, numpy_helper  # slow to import

        self._helper, self._to_tensor = helper, numpy_helper.from_array
        self._nodes, self._weights = [], []

    def constant(self, values: np.ndarray) -> str:
        """Add weights."""
        name = f"weights{len(self._weights)}"
        self._weights.append(self._to_tensor(np.ascontiguousarray(values), name))
        return name

    def add(self, operation: str, *inputs: str, **attributes) -> str:
        """Add an ONNX operation."""
        name = f"layer{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(operation, inputs, [name], **attributes))
        return name

    def session(self, name: str, shape: Sequence[int | str], *outputs: str):
        """Open a session of one float32 input, whose sides may be numbers or names, and float32 outputs."""
        from onnx import TensorProto

        # Leave out what the outputs do not need.
        needed, nodes = set(outputs), []
        for node in reversed(self._nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.insert(0, node)
        value, kind = self._helper.make_tensor_value_info, TensorProto.FLOAT
        inputs, results = [value(name, kind, shape)], [value(output, kind, None) for output in outputs]
        graph = self._helper.make_graph(nodes, "network", inputs, results, self._weights)
        opset = self._helper.make_opsetid("", _OPSET)
        model = self._helper.make_model(graph, opset_imports=[opset], ir_version=_FILE_VERSION)
        return open_session(model.SerializeToString())
