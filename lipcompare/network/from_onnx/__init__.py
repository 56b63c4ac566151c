"""Networks from ONNX models."""

from lipcompare.network.from_onnx.importer import from_onnx

__all__ = ["from_onnx"]
