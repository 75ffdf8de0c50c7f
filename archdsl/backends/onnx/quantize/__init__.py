"""Narrow formats: an ONNX file of a deployed network -> the same file with quantized linears."""
