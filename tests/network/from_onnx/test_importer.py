"""ONNX files import and agree with a float64 evaluation of their graph."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lipcompare.errors import InvalidInput, UnsupportedOperation
from lipcompare.network.agreement import check_agreement
from lipcompare.network.from_onnx import from_onnx
from lipcompare.network.graph import Affine, Network

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "networks"
RANDOM = np.random.default_rng(0)


def _weights(*shape: int, low: float = -1.0) -> np.ndarray[Any, Any]:
    return RANDOM.uniform(low, 1, shape).astype(np.float32)


def _node(kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output] if isinstance(output, str) else output, **attributes)


def _model(
    nodes: list[Any], weights: dict[str, np.ndarray[Any, Any]], shape: list[Any], out_rank: int, *, opset: int = 17,
    listed: bool = False, kind: int = TensorProto.FLOAT,
) -> Any:  # fmt: skip
    """A model from "x" to "y"; ``listed`` puts the initialisers among the inputs, as old exporters do."""
    initializers = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if listed:
        inputs = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in initializers] + inputs
    outputs = [helper.make_tensor_value_info("y", kind, [None] * out_rank)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 8 else 3)


def _agrees(network: Network, model: Any, shape: list[int]) -> None:
    """The model in float64: every float32 tensor in it is one exactly."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    for tensor in double.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in double.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant":
                value = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(numpy_helper.from_array(value.astype(np.float64)))
            if node.op_type == "Cast":
                attribute.i = TensorProto.DOUBLE
    session = ReferenceEvaluator(double)
    for _ in range(3):
        x = RANDOM.normal(size=shape)
        expected = np.asarray(session.run(None, {"x": x})[0], dtype=np.float64).reshape(-1)
        torch.testing.assert_close(
            network.forward(torch.from_numpy(x.reshape(-1))), torch.from_numpy(expected), rtol=1e-9, atol=1e-9
        )


I64 = np.int64
CASES: dict[str, Any] = {
    "gemm": lambda: (_model([
        _node("Flatten", ["x"], "f", axis=1), _node("Gemm", ["f", "w", "b"], "h", transB=1, alpha=0.5, beta=2.0),
        _node("Relu", ["h"], "r"), _node("MatMul", ["r", "v"], "y")],
        {"w": _weights(5, 6), "b": _weights(5), "v": _weights(5, 3)}, ["N", 2, 3], 2), [1, 2, 3]),
    "old exporter": lambda: (_model([
        _node("Sub", ["x", "m"], "s"), _node("Flatten", ["s"], "f", axis=1), _node("MatMul", ["f", "w"], "h"),
        _node("Add", ["h", "b"], "a"), _node("Relu", ["a"], "y")],
        {"m": np.zeros((1, 1, 1, 5), np.float32), "w": _weights(5, 4), "b": _weights(4)}, [1, 1, 1, 5], 2, opset=8,
        listed=True), [1, 1, 1, 5]),
    "no batch axis": lambda: (_model([_node("MatMul", ["x", "w"], "h"), _node("Relu", ["h"], "y")],
                                     {"w": _weights(3, 2)}, [3], 1), [3]),
    "shape arithmetic": lambda: (_model([
        _node("Shape", ["x"], "s"), _node("Gather", ["s", "zero"], "n", axis=0), _node("Unsqueeze", ["n", "axes"], "u"),
        _node("Concat", ["u", "rest"], "to", axis=0), _node("Reshape", ["x", "to"], "f"), _node("MatMul", ["f", "w"],
            "y")],
        {"zero": np.array(0, I64), "axes": np.array([0], I64), "rest": np.array([-1], I64), "w": _weights(6, 2)},
        ["batch", 2, 3], 2), [1, 2, 3]),
    "constants": lambda: (_model([
        _node("Constant", [], "c", value=numpy_helper.from_array(_weights(4))), _node("Neg", ["c"], "d"),
        _node("Mul", ["x", "d"], "h"), _node("Div", ["h", "c2"], "i"), _node("Sub", ["c", "i"], "y")],
        {"c2": _weights(1, 4, low=0.5)}, [1, 4], 2), [1, 4]),
    "residual conv": lambda: (_model([
        _node("Conv", ["x", "w", "b"], "h", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _node("BatchNormalization", ["h", "g", "b", "m", "v"], "n"), _node("Relu", ["n"], "r"), _node("Add", ["r",
            "x"], "s"),
        _node("GlobalAveragePool", ["s"], "y")],
        {"w": _weights(2, 2, 3, 3), "b": _weights(2), "g": _weights(2), "m": _weights(2), "v": _weights(2, low=0.1)},
        ["N", 2, 5, 4], 4), [1, 2, 5, 4]),
    "uneven padding": lambda: (_model([
        _node("Conv", ["x", "w"], "h", pads=[0, 1, 2, 1], strides=[2, 1], group=2), _node("Relu", ["h"], "y")],
        {"w": _weights(4, 1, 3, 2)}, [1, 2, 6, 5], 4), [1, 2, 6, 5]),
    "auto pad": lambda: (_model([
        _node("Conv", ["x", "w"], "h", auto_pad="SAME_UPPER", strides=[2, 2]), _node("MaxPool", ["h"], "p",
              auto_pad="SAME_LOWER", kernel_shape=[2, 2], strides=[1, 1]),
        _node("AveragePool", ["p"], "y", auto_pad="VALID", kernel_shape=[2, 1])],
        {"w": _weights(3, 2, 4, 3)}, [1, 2, 7, 6], 4), [1, 2, 7, 6]),
    "conv transpose": lambda: (_model([
        _node("ConvTranspose", ["x", "w", "b"], "h", strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]),
        _node("Relu", ["h"], "y")], {"w": _weights(2, 3, 3, 2), "b": _weights(3)}, [1, 2, 4, 3], 4), [1, 2, 4, 3]),
    "pools": lambda: (_model([
        _node("MaxPool", ["x"], "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        _node("AveragePool", ["p"], "a", kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1),
        _node("GlobalMaxPool", ["a"], "y")], {}, [1, 2, 8, 8], 4), [1, 2, 8, 8]),
    "reductions": lambda: (_model([
        _node("ReduceMean", ["x"], "a", axes=[1], keepdims=0), _node("ReduceSum", ["x", "ax"], "b", keepdims=0),
        _node("ReduceMax", ["x"], "c", axes=[2], keepdims=0), _node("ReduceMin", ["x"], "d", axes=[-1], keepdims=0),
        _node("Concat", ["a", "b", "c", "d"], "y", axis=1)], {"ax": np.array([2], I64)}, [1, 3, 4], 2), [1, 3, 4]),
    "reductions, new": lambda: (_model([
        _node("ReduceMean", ["x", "ax"], "y", keepdims=0)], {"ax": np.array([1, 2], I64)}, [1, 3, 4], 1, opset=18),
            [1, 3, 4]),
    "activations": lambda: (_model([
        _node("LeakyRelu", ["x"], "a", alpha=0.1), _node("PRelu", ["x", "s"], "b"), _node("Abs", ["x"], "c"),
        _node("Clip", ["x", "lo", ""], "d"), _node("HardSigmoid", ["x"], "e", alpha=0.3), _node("Clip", ["x", "lo",
            "hi"], "g"),
        _node("Max", ["a", "b", "c"], "h"), _node("Min", ["d", "e", "half"], "i"),
        _node("Sum", ["g", "h", "i"], "j"), _node("Mean", ["j", "x"], "y")],
        {"s": np.array([-1.0, 0.2, 1.5, 0.3], np.float32), "lo": np.array(-0.5, np.float32), "hi": np.array(0.7,
            np.float32),
         "half": np.array([0.5], np.float32)}, [1, 4], 2), [1, 4]),
    "clip by attributes": lambda: (_model([_node("Clip", ["x"], "y", min=-0.25, max=0.5)], {}, [1, 4], 2, opset=9),
        [1, 4]),
    "movements": lambda: (_model([
        _node("Transpose", ["x"], "t", perm=[0, 2, 1]), _node("Slice", ["t", "st", "en", "ax", "sp"], "s"),
        _node("Gather", ["s", "ix"], "g", axis=2), _node("Squeeze", ["g", "sq"], "q"), _node("Relu", ["q"], "r"),
        _node("Tile", ["r", "rep"], "u"), _node("Pad", ["u", "pads", "value"], "p"), _node("Split", ["p", "parts"],
            ["m", "n"],
              axis=1), _node("Concat", ["n", "m"], "y", axis=1)],
        {"st": np.array([3], I64), "en": np.array([-(10**9)], I64), "ax": np.array([1], I64), "sp": np.array([-2], I64),
         "ix": np.array([2, 0], I64), "sq": np.array([0], I64), "rep": np.array([1, 3], I64),
         "pads": np.array([1, 0, 0, 2], I64), "value": np.array(0.25, np.float32), "parts": np.array([3, 5], I64)},
        [1, 3, 4], 2), [1, 3, 4]),
    "old movements": lambda: (_model([
        _node("Slice", ["x"], "s", starts=[1], ends=[3], axes=[1]), _node("Unsqueeze", ["s"], "u", axes=[1]),
        _node("Pad", ["u"], "p", pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.5), _node("Squeeze", ["p"], "q", axes=[1]),
        _node("Dropout", ["q"], "y")], {}, [1, 3, 4], 3, opset=9), [1, 3, 4]),
    "up-sampling": lambda: (_model([
        _node("Resize", ["x", "", "scales"], "r", mode="nearest", coordinate_transformation_mode="asymmetric",
              nearest_mode="floor"), _node("DepthToSpace", ["r"], "d", blocksize=2), _node("Relu", ["d"], "y")],
        {"scales": np.array([1, 1, 2, 3], np.float32)}, [1, 4, 2, 3], 4), [1, 4, 2, 3]),
    "bilinear": lambda: (_model([
        _node("Resize", ["x", "", "scales"], "r", mode="linear"), _node("Relu", ["r"], "s"),
        _node("Resize", ["s", "", "", "sizes"], "y", mode="cubic", coordinate_transformation_mode="align_corners")],
        {"scales": np.array([1, 1, 2, 1.5], np.float32), "sizes": np.array([1, 2, 5, 7], I64)}, [1, 2, 3, 4], 4),
        [1, 2, 3, 4]),
    "einsum, cumsum": lambda: (_model([
        _node("Einsum", ["x", "w"], "e", equation="bij,jk->bki"), _node("CumSum", ["e", "one"], "y", exclusive=1,
              reverse=1)], {"w": _weights(4, 5), "one": np.array(1, I64)}, [1, 3, 4], 3), [1, 3, 4]),
    "powers": lambda: (_model([
        _node("Pow", ["x", "two"], "p"), _node("Mul", ["x", "x"], "q"), _node("Add", ["p", "w"], "r"),
        _node("Tanh", ["q"], "s"), _node("Sub", ["r", "s"], "t"), _node("Pow", ["two", "x"], "u"),
        _node("Add", ["t", "u"], "y")], {"two": np.array(2, np.float32), "w": _weights(4)}, [1, 4], 2), [1, 4]),
    "quantised weights": lambda: (_model([
        _node("DequantizeLinear", ["w", "scale", "zero"], "v"), _node("MatMul", ["x", "v"], "y")],
        {"w": RANDOM.integers(-9, 9, (4, 3)).astype(np.int8), "scale": np.array(0.25, np.float32),
         "zero": np.array(1, np.int8)}, [1, 4], 2, opset=19), [1, 4]),
    "masks": lambda: (_model([
        _node("Where", ["mask", "x", "other"], "w"), _node("Expand", ["w", "to"], "e"), _node("Cast", ["e"], "y",
            to=1)],
        {"mask": np.array([True, False, True]), "other": _weights(3), "to": np.array([1, 2, 3], I64)}, [1, 1, 3], 3),
            [1, 1, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_import_agrees_with_onnx(name: str) -> None:
    model, shape = CASES[name]()
    onnx.checker.check_model(model)
    network = from_onnx(model)
    assert isinstance(network.nodes[-1], Affine)
    assert network.in_size == np.prod(shape)
    _agrees(network, model, shape)


def test_gelu_tanh_taken_apart() -> None:
    numbers = {"three": 3.0, "c": 0.044715, "d": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5}
    nodes = [
        _node("Pow", ["x", "three"], "p"), _node("Mul", ["p", "c"], "q"), _node("Add", ["x", "q"], "r"),
        _node("Mul", ["r", "d"], "s"), _node("Tanh", ["s"], "t"), _node("Add", ["t", "one"], "u"),
        _node("Mul", ["x", "u"], "v"), _node("Mul", ["v", "half"], "y"),
    ]  # fmt: skip
    network = from_onnx(_model(nodes, {k: np.array(v, np.float32) for k, v in numbers.items()}, [1, 4], 2))
    (k,) = network.activations
    assert network.activation(k).name == "gelu_tanh"
    x = torch.linspace(-2, 2, 4, dtype=torch.float64)
    # The network is the one whose numbers are stored, and in single precision these are not quite those of GELU.
    c, d = (float(np.float32(numbers[name])) for name in "cd")
    expected = x * (torch.tanh((x + c * x**3) * d) + 1) / 2
    torch.testing.assert_close(network.forward(x), expected, rtol=1e-14, atol=1e-15)


def test_a_linear_regressor() -> None:
    node = _node("LinearRegressor", ["x"], "y", domain="ai.onnx.ml", coefficients=[1.0, -2.0, 0.5, 3.0, 0.0, 1.5],
                 intercepts=[0.5, -1.0], targets=2)  # fmt: skip
    model = _model([node], {}, [1, 3], 2)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    network = from_onnx(model)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(network.forward(x), torch.tensor([-1.0, 6.5], dtype=torch.float64))


def test_a_linear_regressor_with_too_few_coefficients() -> None:
    node = _node("LinearRegressor", ["x"], "y", domain="ai.onnx.ml", coefficients=[1.0, -2.0], targets=1)
    model = _model([node], {}, [1, 3], 1)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    with pytest.raises(UnsupportedOperation, match="it has 2 coefficients for 1 x 3 weights"):
        from_onnx(model)


def test_the_power_0_is_1() -> None:
    nodes = [_node("Pow", ["x", "none"], "p"), _node("Add", ["x", "p"], "y")]
    network = from_onnx(_model(nodes, {"none": np.array(0, np.float32)}, [1, 3], 3))
    assert network.forward(torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)).tolist() == [1.0, 0.0, 3.0]


def test_shapes_without_the_batch_axis() -> None:
    model, _ = CASES["gemm"]()
    network = from_onnx(model)
    assert (network.input_shape, network.output_shape) == ((2, 3), (3,))
    model, _ = CASES["no batch axis"]()
    assert from_onnx(model).input_shape == (3,)


def test_weights_keep_their_float32_values() -> None:
    model, _ = CASES["no batch axis"]()
    weight = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float64)
    first = from_onnx(model).nodes[1]
    assert isinstance(first, Affine)
    assert np.array_equal(first.maps[0].matrix().numpy(), weight.T)


def test_dynamic_dimensions_other_than_the_batch() -> None:
    model = _model([_node("Relu", ["x"], "y")], {}, ["N", 1, "H", 4], 4)
    with pytest.raises(InvalidInput, match=r"\(\?, 1, \?, 4\): give input_shape"):
        from_onnx(model)
    assert from_onnx(model, input_shape=(1, 3, 4)).in_size == 12
    with pytest.raises(InvalidInput, match=r"\(1, 3, 5\) does not fit"):
        from_onnx(model, input_shape=(1, 3, 5))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([_node("RMSNormalization", ["x"], "y", name="norm")], "'RMSNormalization' at node 'norm'.*its input"),
        ([_node("Attention", ["x"], "y", domain="com.microsoft")], "'Attention'.*attention multiplies"),
        ([_node("MatMul", ["x", "x"], "y")], "both depend on the input"),
        ([_node("MyOp", ["x"], "y", domain="com.example")], "'MyOp'"),
        ([_node("Reciprocal", ["x"], "y")], "'Reciprocal'"),
        (
            [_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2]), _node("Add", ["p", "i"], "y")],
            "only the first output",
        ),
    ],
)
def test_unsupported_operations_are_named(nodes: list[Any], words: str) -> None:
    model = _model(nodes, {}, [1, 4, 4], 3)
    with pytest.raises(UnsupportedOperation, match=words):
        from_onnx(model)


def test_attention_is_one_clear_error() -> None:
    nodes = [_node("MatMul", ["x", "w"], "q"), _node("Transpose", ["x"], "k", perm=[0, 2, 1]), _node("MatMul", ["q",
        "k"], "s"),
             _node("Softmax", ["s"], "a"), _node("MatMul", ["a", "x"], "y")]  # fmt: skip
    with pytest.raises(UnsupportedOperation, match="`lipcompare operations` lists all that are"):
        from_onnx(_model(nodes, {"w": _weights(4, 4)}, [1, 3, 4], 3))


def test_bad_models_get_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = _model([_node("MatMul", ["x", "w"], "y")], {"w": np.full((3, 2), np.nan, np.float32)}, [1, 3], 2)
    with pytest.raises(InvalidInput, match="no finite float64 numbers"):
        from_onnx(nan)
    two = _model([_node("Relu", ["x"], "y")], {}, [1, 3], 2)
    two.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    with pytest.raises(InvalidInput, match="takes 2 inputs"):
        from_onnx(two)
    for content in (b"", b"not a model at all"):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(InvalidInput, match="not a readable ONNX file"):
            from_onnx(tmp_path / "broken.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InvalidInput, match=r"pip install 'lipcompare\[onnx\]'"):
        from_onnx(tmp_path / "broken.onnx")


@pytest.mark.parametrize("kind", ["Sigmoid", "Gelu", "Tanh", "Erf", "Softplus", "HardSwish"])
def test_saturated_activations_are_compared_as_accurately_as_the_source_computes(kind: str) -> None:
    """onnxruntime's sigmoid is off by 1e-7 wherever it is: much, against outputs that are all about 3e-4."""
    pytest.importorskip("onnxruntime")
    nodes = [_node("Gemm", ["x", "w", "b"], "h"), _node(kind, ["h"], "y")]
    weights = {"w": 0.1 * _weights(3, 2), "b": np.full(2, -8, np.float32)}
    network = from_onnx(_model(nodes, weights, [1, 3], 2, opset=20))
    assert network.neurons == 2


def test_a_network_that_differs_is_still_refused() -> None:
    """Where a value that matters is off by a thousandth, saturated or not."""
    model = _model([_node("Gemm", ["x", "w", "b"], "h"), _node("Sigmoid", ["h"], "y")],
                   {"w": 0.1 * _weights(3, 2), "b": np.full(2, -4, np.float32)}, [1, 3], 2)  # fmt: skip
    network = from_onnx(model)
    with pytest.raises(InvalidInput, match="differs from its source"):
        check_agreement(network, lambda x: network.forward(x.reshape(-1)) * 1.001, torch.float32)


def test_loading_takes_time_in_proportion_to_the_depth() -> None:
    def seconds(depth: int) -> float:
        names = ["x", *(f"h{k}" for k in range(2 * depth - 1)), "y"]
        nodes = [_node("MatMul", [names[2 * k], "w"], names[2 * k + 1]) for k in range(depth)]
        nodes += [_node("Relu", [names[2 * k + 1]], names[2 * k + 2]) for k in range(depth)]
        nodes = [n for pair in zip(nodes[:depth], nodes[depth:], strict=True) for n in pair]
        model = _model(nodes, {"w": np.eye(2, dtype=np.float32)}, [1, 2], 2)
        before = time.process_time()
        assert len(from_onnx(model).activations) == depth
        return time.process_time() - before

    seconds(10)
    assert seconds(2000) < 16 * seconds(250) + 0.2  # 8 times the depth; a quadratic step took 64 times as long


def test_an_input_that_has_no_entries_or_is_too_small() -> None:
    model = _model([_node("Relu", ["x"], "y")], {}, [0, 3], 2)
    with pytest.raises(InvalidInput, match="no entries: export it again with batch size 1"):
        from_onnx(model)
    for kind, weights in (("Conv", {"w": _weights(2, 1, 5, 5)}), ("MaxPool", {}), ("AveragePool", {})):
        attributes = {} if weights else {"kernel_shape": [5, 5]}
        nodes = [_node(kind, ["x", *weights], "h", **attributes), _node("Flatten", ["h"], "y")]
        model = _model(nodes, weights, ["N", 1, "H", "W"], 2)
        with pytest.raises(InvalidInput, match="too small"):
            from_onnx(model, input_shape=(1, 3, 3))
        assert from_onnx(model, input_shape=(1, 5, 5)).in_size == 25


def test_weights_in_another_file_that_is_not_there(tmp_path: Path) -> None:
    model = _model([_node("MatMul", ["x", "w"], "y")], {"w": _weights(40, 40)}, [1, 40], 2)
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.onnx.data", size_threshold=0)
    assert from_onnx(tmp_path / "a.onnx").in_size == 40
    (tmp_path / "a.onnx.data").unlink()
    with pytest.raises(InvalidInput, match=r"a\.onnx has its weights in a\.onnx\.data, which is not beside it"):
        from_onnx(tmp_path / "a.onnx")


def test_a_product_of_finite_weights_that_overflows_is_not_formed() -> None:
    huge = np.full((2, 2), 1e200)
    nodes = [_node("MatMul", ["x", "w"], "h"), _node("MatMul", ["h", "v"], "y")]
    model = _model(nodes, {"w": huge, "v": np.full((2, 2), 1e-250)}, [1, 2], 2, kind=TensorProto.DOUBLE)
    assert from_onnx(model).out_size == 2
    model = _model(nodes, {"w": huge, "v": huge}, [1, 2], 2, kind=TensorProto.DOUBLE)
    with pytest.raises(InvalidInput, match="own output is NaN or infinite"):
        from_onnx(model)


@pytest.mark.parametrize(
    "nodes",
    [
        [_node("Concat", [f"h{k}", f"h{k}"], f"h{k + 1}", axis=1) for k in range(40)],
        [_node("Expand", ["h0", "wide"], "h40")],
        [_node("Tile", ["h0", "huge"], "h40")],
        [_node("Pad", ["h0", "pads"], "h40")],
        [_node("ConstantOfShape", ["huge"], "c"), _node("Add", ["h0", "c"], "h40")],
        [_node("Range", ["zero", "million", "one"], "c"), _node("Reshape", ["c", "column"], "d"),
         _node("Mul", ["c", "d"], "e"), _node("ReduceSum", ["e"], "f"), _node("Add", ["h0", "f"], "h40")],
        [_node("MatMul", ["tall", "h0"], "h40")],
        [_node("Resize", ["h0", "", "", "huge"], "h40")],
    ],
    ids=lambda nodes: nodes[0].op_type,
)  # fmt: skip
def test_sizes_are_checked_before_they_are_allocated(nodes: list[Any]) -> None:
    weights = {
        "huge": np.array([10**6, 10**6], I64), "wide": np.array([10**9, 1000], I64),
        "pads": np.array([0, 0, 10**6, 10**6], I64), "zero": np.array(0, I64),
        "million": np.array(10**6, I64), "one": np.array(1, I64), "column": np.array([-1, 1], I64),
        "tall": np.ones((10**6, 1), np.float32),
    }  # fmt: skip
    first = _node("Relu", ["x"], "h0")
    model = _model([first, *nodes, _node("Identity", ["h40"], "y")], weights, [1, 1000], 2)
    with pytest.raises(InvalidInput, match=r"memory limit of 1 GiB: raise it \(--memory") as caught:
        from_onnx(model)
    assert "iB, more than is left" in str(caught.value)


def test_without_onnxruntime_the_reference_evaluator_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model, shape = CASES["residual conv"]()
    _agrees(from_onnx(model), model, shape)


FILES = sorted(p for p in SHARED.glob("**/*.onnx") if "SIGMOID" not in p.name)


@pytest.mark.skipif(not FILES, reason="the networks of others are not here")
def test_files_of_others() -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    for path in FILES:
        network = from_onnx(path)
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (argument,) = session.get_inputs()
        shape = [n if isinstance(n, int) else 1 for n in argument.shape]
        for _ in range(3):
            x = RANDOM.uniform(0, 1, shape).astype(np.float32)
            expected = torch.from_numpy(session.run(None, {argument.name: x})[0]).reshape(-1).double()
            ours = network.forward(torch.from_numpy(x.reshape(-1)).double())
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5 * max(scale, 1e-3), msg=path.name)
