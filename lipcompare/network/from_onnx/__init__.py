"""Networks from ONNX models."""
