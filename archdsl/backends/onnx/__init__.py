"""Graph -> ONNX, written directly: the model, an emitter for each op, files, dialects for runtimes, int8."""
