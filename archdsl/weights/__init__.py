"""Weights in and out: reading files safely, translating other libraries' names, writing safetensors."""
