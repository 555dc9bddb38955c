"""ONNX models made by hand or by torch, and what ONNX Runtime answers.

The evaluator of the package onnx is no substitute: it pools, and computes old opsets, otherwise.
"""

import io
import warnings
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import fskernel as fs


def array(*shape, seed=0):
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value_info(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=None, opset=21, **kinds):
    """A model; `inputs` are shapes by name, `kinds` types of inputs that are not float."""
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [value_info(k, v, kinds.get(k, TensorProto.FLOAT)) for k, v in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    made = onnx.shape_inference.infer_shapes(made)  # for the types of the outputs
    for output in made.graph.output:
        if not output.HasField("type"):
            output.CopyFrom(value_info(output.name))
    return made


def one(operator, inputs, constants=(), opset=21, outputs=1, name="node", **attributes):
    """A model of one node: its inputs by shape, then constants, None for one left out."""
    weights = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    read = [*inputs, *(f"c{i}" if c is not None else "" for i, c in enumerate(constants))]
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(operator, read, made, name=name, **attributes)
    return model([node], inputs, made, weights, opset)


def answers(proto, *given):
    """What the file's outputs are; skips the test where there is no ONNX Runtime to ask."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    feeds = dict(zip(_inputs(proto), (np.asarray(x) for x in given)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def _inputs(proto):
    there = {t.name for t in proto.graph.initializer}
    return [i.name for i in proto.graph.input if i.name not in there]


def assert_close(found, wanted):
    """Within 1e-5 of the largest number of an output."""
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted):
        mine = mine.detach().numpy()
        if theirs.dtype == np.float32:  # of a max-pool's window that lies in the padding alone
            theirs = np.where(theirs == np.finfo(np.float32).min, -np.inf, theirs)
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
        largest = max(float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)), 1e-6)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * largest)


def run(network, *given):
    """The outputs of a module as a list."""
    with torch.no_grad():
        found = network(*(torch.from_numpy(np.array(x)) for x in given))
    return list(found) if isinstance(found, tuple) else [found]


def assert_same(proto, *given):
    """The module of a file gives what the file's runtime gives; returns the module."""
    network = fs.from_onnx(proto)
    assert_close(run(network, *given), answers(proto, *given))
    return network


AUTO = torch.export.Dim.AUTO
ANY_SIZE = ({0: AUTO, 2: AUTO, 3: AUTO},)


def assert_any_size(network, first, *others):
    """What torch.export makes of it for one size is right for others, too."""
    exported = torch.export.export(network, (first,), dynamic_shapes=ANY_SIZE, strict=False)
    for x in others:
        with torch.no_grad():
            assert torch.equal(exported.module()(x), network(x))


@cache
def _bytes(make, opset, options):
    module = make().eval()
    x = torch.zeros(2, *module.example)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, which is going to be replaced
        torch.onnx.export(
            module,
            (x,),
            file,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "n", **{d: f"d{d}" for d in range(2, x.dim())}}},
            opset_version=opset,
            dynamo=False,
            **dict(options),
        )
    return file.getvalue()


def exported(make, opset=17, **options):
    """The file that torch writes of a module with an attribute `example`, the shape of an image."""
    return onnx.load_from_string(_bytes(make, opset, tuple(options.items())))
