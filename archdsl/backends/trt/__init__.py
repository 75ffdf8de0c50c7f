"""ONNX -> TensorRT engine: built, cached, inspected, profiled. Checked against the bindings, not yet run on a GPU."""
