"""What transformers calls the tensors of a pre-norm transformer block, in every family that has one."""

HUGGINGFACE_BLOCK = {
    "layernorm_before.": "norm1.",
    "attention.output.dense.": "attn.proj.",
    "layernorm_after.": "norm2.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}

QKV = {"attn.qkv": ("attn.query", "attn.key", "attn.value")}
"""transformers holds the three projections apart."""
